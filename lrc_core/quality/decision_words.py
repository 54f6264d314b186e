"""The decision picture in words, every figure from its rows, also where the answer is: quantise instead. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_core.formats.grids import QUANTISED
from lrc_core.quality.alternatives import SLACK
from lrc_core.quality.decision import DENSE, FORMAT, LOW_RANK, REFERENCE, TUNED, Choice, frontier
from lrc_core.quality.tables import row_label
from lrc_core.texts.label import text_labels
from lrc_core.words import listed, measured, percent

HOW = "“Just quantised” of a new comparison, or `lrc compare MODEL --formats " + " ".join(QUANTISED) + "`, measures it."
"""How the rows come about that the decision needs."""
BESIDE = (
    "What low rank is for beside it: fewer operations as well as fewer bytes, ranks on top of low bits where formats "
    "have no smaller step, and a structure one can learn from."
)

FITTED = "Some gain on the dense model: their factors were fitted to text after the cut, the dense model was not."


def decision_words(found: Sequence[Choice]) -> str:
    """What the choices say to somebody who has to decide: two to four sentences; "" where no ranks were measured."""
    ranks = [one for one in found if one.kind in LOW_RANK]
    formats = [one for one in found if one.kind == FORMAT]
    if not ranks:
        return ""
    if not formats:
        best = min(ranks, key=lambda one: one.loss)
        unknown = (
            f"{_taken(best)}. Whether a number format of fewer bits would lose less was not measured, so this is no "
            f"answer yet: {HOW}"
        )
        return " ".join([unknown, *_other_models(found)])
    said = [f"{_opposed(formats, ranks)}.", _verdict(ranks, formats), *([FITTED] if _any_gains(found) else [])]
    return " ".join([*said, *_other_models(found), BESIDE])


def _any_gains(found: Sequence[Choice]) -> bool:
    """Whether any ranks with trained factors come out better than the dense model, by more than chance."""
    dense, tuned = ([one for one in found if one.kind == kind] for kind in (DENSE, TUNED))
    return any(one.against(base).sign < 0 for base in dense for one in tuned)


def loss_words(choice: Choice) -> str:
    """``loses 21.3 ± 1.2 %``: perplexity beyond the dense model's."""
    error = choice.times_error
    said = measured(100 * (choice.times - 1), None if error is None else 100 * error)
    return f"loses {said} %" if choice.loss >= 0 else f"gains {said.removeprefix('-')} %"


def texts_words(found: Sequence[Choice]) -> str:
    """``gensim and c4``: what losses are the mean over."""
    return " and ".join(text_labels(list(found[0].texts)).values()) if found else ""


def _taken(choice: Choice) -> str:
    """``Q8_0 alone takes 53 % of the bytes and loses 0.1 ± 0.1 %``."""
    return f"{choice.name} takes {percent(choice.share)} of the bytes and {loss_words(choice)}"


def _other_models(found: Sequence[Choice]) -> list[str]:
    """Every smaller model that was measured beside this one, and what beats it; larger ones are left out."""
    best, said = frontier(found), []
    for one in found:
        if one.kind != REFERENCE or one.share >= 1:
            continue
        if one in best:
            said.append(f"A smaller model nothing beats at its size: {_taken(one)}.")
            continue
        rivals = (each for each in found if each is not one and each.size <= SLACK * one.size)
        other = min(rivals, key=lambda each: each.loss)
        said.append(f"A smaller model: {_taken(one)}; {other.name} in no more bytes {loss_words(other)}.")
    return said


def _opposed(formats: Sequence[Choice], ranks: Sequence[Choice]) -> str:
    """The format of least loss beside the best ranks of no more bytes, or of the fewest there are."""
    best = min(formats, key=lambda one: one.loss)
    small = [one for one in ranks if one.size <= SLACK * best.size]
    if small:
        other = min(small, key=lambda one: one.loss)
        return f"{_taken(best)}; {other.name}, our best ranks of no more bytes, {loss_words(other)}"
    least = min(one.size for one in ranks)
    other = min((one for one in ranks if one.size <= SLACK * least), key=lambda one: one.loss)
    return f"{_taken(best)}; no ranks that were measured are as small: {_taken(other)}"


def _verdict(ranks: Sequence[Choice], formats: Sequence[Choice]) -> str:
    """Where ranks are the better choice, if anywhere: what a format of no more bytes beats is none."""
    least = min(formats, key=lambda one: one.size)
    standing = [one for one in ranks if one in frontier([*ranks, *formats])]
    below = [one for one in standing if one.size < least.size / SLACK]
    beside = [one for one in standing if one not in below]
    if not standing:
        chance = [one for one in ranks if not _is_worse(one, formats)]
        why = f", for the fewer bytes: what {_listed(chance)} more may be chance" if chance else ""
        return f"At every size that was measured the answer is: **quantise instead**{why}."
    said = []
    if beside:
        ways: dict[str, list[str]] = {}
        for one in beside:
            ways.setdefault(row_label(one.row), []).append(f"{percent(one.share)}{_sure(one, formats)}")
        names = "; ".join(f"{name} at {listed(shares)} of the bytes" for name, shares in ways.items())
        said.append(f"No number format alone beats these: {names}.")
    else:
        said.append(f"Down to {percent(least.share)} of the bytes the answer is: **quantise instead**.")
    if below:
        best = min(below, key=lambda one: one.loss)
        said.append(
            f"Ranks win below {percent(least.share)}, where no format that was measured reaches: {_taken(best)}."
        )
    return " ".join(said)


def _is_worse(one: Choice, formats: Sequence[Choice]) -> bool:
    """Whether ranks lose more than the best format of no more bytes by more than chance."""
    other = min((form for form in formats if form.size <= SLACK * one.size), key=lambda form: form.loss)
    return one.against(other).sign > 0


def _listed(ranks: Sequence[Choice]) -> str:
    names = [f"{one.name} at {percent(one.share)}" for one in ranks]
    return f"{listed(names)} lose{'s' if len(names) == 1 else ''}"


def _sure(one: Choice, formats: Sequence[Choice]) -> str:
    """A remark where the next smaller format may lose no more, within their errors."""
    under = [other for other in formats if other.size <= SLACK * one.size]
    if not under:
        return ""
    other = min(under, key=lambda choice: choice.loss)
    gap = one.against(other)
    if gap.stderr is None:
        return " (errors not known)"
    return "" if gap.sign < 0 else f" ({other.name} differs by no more than chance)"
