"""The question with its short answer, and the methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lrc_core.budget import storage_law
from lrc_core.coverage import coverage_words
from lrc_core.formats.grids import BF16
from lrc_core.names import decomposition_label, method_label
from lrc_core.plan import PAIR, split_variant, storage_of
from lrc_core.quality.decision_words import BESIDE, decision_words
from lrc_core.quality.plain_words import accuracy_loss, difference_words, surprise
from lrc_core.quality.quantised import served_bytes
from lrc_core.quality.rows import times_dense
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.report.content import COUNTED, MEASURED, Block, Fact, Facts, Section, Words
from lrc_core.report.measured import MeasuringSpec, Row, spec_of
from lrc_core.report.sections.prose import report_prose, with_papers
from lrc_core.report.sections.rows import Named, certainty, ranked
from lrc_core.results.comparisons import warned
from lrc_core.runs.spec import EvaluateSpec
from lrc_core.updates import UPDATES, update_words
from lrc_core.words import count, data_size, figure, listed, measured, percent, removed, times


def question(named: Named) -> Section:
    """What was asked, and what came out in one paragraph and a few figures."""
    card = named.sources.card
    opening = report_prose(
        "question",
        name=card.name,
        params=count(card.params_total),
        size=data_size(BF16.block_bytes * card.params_total),
        share=percent(card.params_linear / card.params_total, 0),
        layers=f"{len(card.layers):,}",
        blocks=str(card.n_blocks),
    )
    blocks: list[Block] = [Words(text) for text in opening]
    if said := coverage_words(card.coverage):
        blocks.append(Words(said))
    best = ranked(named, named.focus)
    if best:
        blocks += [Facts(tuple(_facts(named, best[0]))), Words(_answer(named, best))]
        if advice := decision_words(named.choices).removesuffix(BESIDE).strip():
            blocks.append(Words(f"**What to do with it.** {advice}"))
    else:
        blocks.append(
            Words(
                "Nothing was measured for this report: it shows plans, and no quality. "
                f"`lrc compare {card.identity.source}` measures it.",
                "warning",
            )
        )
    blocks += [Words(words, "warning") for words in warned(named.rows)]
    if stale := named.sources.changed():
        blocks.append(Words(f"These runs were measured before a change: {'; '.join(stale)}.", "warning"))
    return Section("question", "The question", tuple(blocks))


def _facts(named: Named, row: Row) -> Iterator[Fact]:
    card, dense = named.sources.card, named.dense
    target = removed(named.focus)
    yield Fact("Smallest loss", named.line(row), f"at {target} compression of the block linears", MEASURED)
    if row.get("keep_whole_model") is not None:
        whole = float(row["keep_whole_model"])
        full = BF16.block_bytes * card.params_total
        size = served_bytes(row) or round(whole * full)
        yield Fact(
            "Size of the weights", data_size(size), f"{removed(size / full)} less than {data_size(full)}", COUNTED
        )
    for text, ratio in times_dense(row, dense).items():
        score = row["perplexity"][text]
        value = measured(score["value"], score.get("stderr"))
        yield Fact(f"Perplexity, {named.text(text)}", f"{times(ratio)} ×", f"{value}; dense model = 1", MEASURED)
    loss = accuracy_loss(row, dense, named.sources.scores()) if dense else None
    if loss is not None:
        gap = loss.difference
        shown = f"{figure(abs(gap), 2)} {'fewer' if gap < 0 else 'more'}" if abs(gap) >= 0.05 else "as many"
        yield Fact("Right answers of 100", shown, f"{loss.error_words}; {loss.questions:,} questions asked", MEASURED)


def _answer(named: Named, best: list[Row]) -> str:
    """Who loses least, by how much, and how sure that is."""
    first, dense = best[0], named.dense
    said = f"At {removed(named.focus)} compression **{named.line(first)} loses least**"
    if dense is not None and (ratios := surprise(first, dense)):
        said += f": its perplexity is {ratios}"
    if len(best) > 1:
        last = best[-1]
        other = times_dense(last, dense)
        if other:
            figures = listed([times(value) for value in other.values()])
            said += f", against {figures} times for {named.line(last)}, which loses most"
        said += ". " + certainty(first, best[1], named)
    else:
        said += "; this comparison holds no other method at this size."
    loss = accuracy_loss(first, dense, named.sources.scores()) if dense else None
    return said.strip() + (f" {difference_words(loss, named.line(first))}" if loss is not None else "")


def method(named: Named) -> Section:
    """Every method and decomposition in two sentences."""
    specs = [spec_of(run) for run in named.sources.comparisons]
    blocks: list[Block] = [Words(_alike(named))] if named.compressed else []
    decompositions = dict.fromkeys(str(shown.plan.decomposition) for shown in named.sources.plans)
    decompositions |= dict.fromkeys(str(row["decomposition"]) for row in named.compressed if row.get("decomposition"))
    for name in decompositions:
        if name in DECOMPOSITIONS:
            entry = DECOMPOSITIONS.get(name)
            said = f"**Decomposition: {decomposition_label(name)}.** {entry.summary} Source: {entry.source}."
            blocks.append(Words(with_papers(said)))
    names = dict.fromkeys(str(row["method"]) for row in named.compressed)
    names |= dict.fromkeys(shown.method for shown in named.sources.plans)
    parts = [split_variant(name) for name in names]
    words = [_method_words(plain, specs) for plain in dict.fromkeys(plain for plain, _, _ in parts)]
    words += [_update_words(update) for update in dict.fromkeys(update for _, update, _ in parts) if update]
    words += [
        f"**Pivots.** Low-rank layers are stored by pivots: {storage_law(law).summary}"
        for law in dict.fromkeys(law for _, _, law in parts)
        if law != PAIR
    ]
    return Section("method", "The method", (*blocks, *(Words(with_papers(one)) for one in words)))


def _alike(named: Named) -> str:
    """What the compressed rows have in common, and so what their differences are of."""
    rows = named.compressed
    if len({str(row["method"]) for row in rows}) < 2:
        return "Only one method was measured, beside the dense model."
    calibrations = {spec_of(run).calibration for run in named.sources.comparisons}
    same = "Every method below gets the same budget, and is measured on the same texts and tasks"
    apart = {
        "the decomposition": len({row["decomposition"] for row in rows if row.get("decomposition")}) > 1,
        "how low-rank layers are stored": len({storage_of(row) for row in rows}) > 1,
        "whether factors were updated or tuned": len({bool(row.get("update")) for row in rows}) > 1,
        "what they were calibrated on": len(calibrations) > 1,
    }
    if not any(apart.values()):
        return f"{same}, and the same decomposition. They differ only in how they divide the budget among layers."
    return (
        f"{same}. They differ in {listed(['how they share it out', *(one for one, is_so in apart.items() if is_so)])}."
    )


def _method_words(name: str, specs: Sequence[MeasuringSpec]) -> str:
    if name not in ALLOCATORS:
        return f"**{method_label(name)}.** A plan that was not made by a method of this program."
    entry = ALLOCATORS.get(name)
    asked = [spec for spec in specs if not isinstance(spec, EvaluateSpec) and name in spec.methods]
    presets = list(dict.fromkeys(f"`{spec.presets.get(name, next(iter(entry.presets)))}`" for spec in asked))
    how = f"Run with preset{'s'[: len(presets) - 1]} {listed(presets)}" if presets else "Shown as recorded"
    source = f"; source: {entry.source}" if entry.source not in ("", "–") else ""
    return f"**{entry.label}.** {entry.summary} {how}{source}."


def _update_words(update: str) -> str:
    """What such rows have beyond ranks: trained or fitted factors, or number formats chosen with the ranks."""
    bits = "Number formats of layers were chosen together with their ranks."
    done = UPDATES.get(update).report if update in UPDATES else bits if update == "bits" else ""
    return f"**{update_words(update).strip(' +').capitalize()}.** {done}"
