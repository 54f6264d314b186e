"""What the rows of a comparison are called, which of them lead, and how sure their differences are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrc_core.budget import USUAL_KEEP, same_size, size_key
from lrc_core.charts.shapes import DENSE_SYMBOL, SYMBOLS
from lrc_core.formats.grids import BF16, METHODS
from lrc_core.names import GREY, decomposition_label, in_order, method_color, method_label
from lrc_core.quality.alternatives import difference
from lrc_core.quality.decision import Choice, choices
from lrc_core.quality.paired import LEVEL
from lrc_core.quality.quantised import at_rate, compresses, share_of
from lrc_core.quality.tables import p_of, texts_of
from lrc_core.report.content import LegendEntry
from lrc_core.report.measured import Row
from lrc_core.report.sections.prose import p_words
from lrc_core.report.sources import Sources
from lrc_core.texts.label import text_label, text_labels
from lrc_core.words import listed, percent, removed


class Named:
    """The rows of a report under the names that it gives them everywhere.

    Args:
        sources: of the report.
        keep: target that the report leads with; the usual one, or the closest that was measured.
    """

    def __init__(self, sources: Sources, keep: float | None = None) -> None:
        self.sources = sources
        self.rows = sources.rows
        self._decompositions = {str(row["decomposition"]) for row in self.compressed if row.get("decomposition")}
        self._seeds = {row.get("seed") for row in self.compressed if row.get("seed") is not None}
        targets = self.targets or sorted({shown.keep for shown in sources.plans})
        wanted = USUAL_KEEP if keep is None else keep
        self.focus = min(targets, key=lambda target: abs(target - wanted)) if targets else wanted

    @property
    def compressed(self) -> list[Row]:
        """Rows of compressed models at a share of parameters, failed ones too."""
        return [row for row in self.rows if at_rate(row)]

    @property
    def measured(self) -> list[Row]:
        """Compressed rows that were measured."""
        return [row for row in self.compressed if "error" not in row]

    @property
    def dense(self) -> Row | None:
        """The dense model's row."""
        return next((row for row in self.rows if row["method"] == "dense" and "error" not in row), None)

    @property
    def formats(self) -> list[Row]:
        """Measured rows of number formats alone."""
        return [row for row in self.rows if row["method"] in METHODS and "error" not in row]

    @property
    def choices(self) -> list[Choice]:
        """Every way to a smaller model that was measured, by bytes and loss."""
        full = BF16.block_bytes * self.sources.card.params_total
        return choices(self.rows, full, self.sources.scores())

    @property
    def targets(self) -> list[float]:
        """Shares to keep, least compression first."""
        return sorted({size_key(row["keep_target"]) for row in self.compressed}, reverse=True)

    @property
    def texts(self) -> list[str]:
        """Texts with a perplexity."""
        return texts_of([row for row in self.rows if "error" not in row])

    def text(self, text: str) -> str:
        """What a text is called: its file's name, with as much of its folder as tells it from the others."""
        return text_labels(self.texts).get(text) or text_label(text)

    def at(self, keep: float) -> list[Row]:
        """Measured rows at a target."""
        return [row for row in self.measured if same_size(row["keep_target"], keep)]

    def line(self, row: Row) -> str:
        """The method, with what else tells it from other rows at its target."""
        if row["method"] == "reference":
            return str(row.get("name", "Reference model"))
        if row["method"] == "dense":
            return "Dense model"
        words = [method_label(str(row["method"]))]
        if len(self._decompositions) > 1 and row.get("decomposition"):  # what prunes structure has none
            words.append(decomposition_label(str(row["decomposition"])))
        words += [f"seed {row['seed']}"] if len(self._seeds) > 1 and row.get("seed") is not None else []
        return ", ".join(words)

    def name(self, row: Row) -> str:
        """The same with the compression."""
        if compresses(row) and not at_rate(row):
            return f"{self.line(row)} in {percent(share_of(row), 0)} of the layers' bytes"
        return self.line(row) + ("" if not compresses(row) else f" at {removed(float(row['keep_target']))}")

    def key(self, row: Row) -> tuple[str, str]:
        """Method and target, by which a reader switches rows off; "" where he cannot."""
        return key_of(str(row["method"]), float(row["keep_target"])) if at_rate(row) else ("", "")

    def legend(self) -> tuple[LegendEntry, ...]:
        """A colour and symbol for every line of a chart."""
        names = {self.line(row): str(row["method"]) for row in self.measured}
        order = in_order(names.values())
        ordered = sorted(names, key=lambda name: order.index(names[name]))
        dense = (LegendEntry("Dense model", "ink", DENSE_SYMBOL, ""),) if self.dense else ()
        return dense + tuple(
            LegendEntry(name, method_color(names[name]), SYMBOLS[number % len(SYMBOLS)], names[name])
            for number, name in enumerate(ordered)
        )


def key_of(method: str, keep: float) -> tuple[str, str]:
    """What a row, heatmap or card belongs to: nothing for what has no target."""
    return (method, target_key(keep)) if compresses({"method": method}) else ("", "")


def target_key(keep: float) -> str:
    """What a target is called in the file, where a reader switches it off."""
    return f"{size_key(keep):g}"


def row_color(row: Row) -> str:
    """The method's colour."""
    return method_color(str(row["method"])) if row["method"] != "reference" else GREY


def mean_log_ratio(row: Row, other: Row, texts: Sequence[str]) -> float | None:
    """Mean over texts of the difference of log-perplexity; None where they share no text."""
    shared = [text for text in texts if text in row["perplexity"] and text in other["perplexity"]]
    if not shared:
        return None
    logs = [math.log(row["perplexity"][text]["value"] / other["perplexity"][text]["value"]) for text in shared]
    return sum(logs) / len(logs)


def ranked(named: Named, keep: float) -> list[Row]:
    """Measured rows at a target, the lowest perplexity first."""
    rows = [row for row in named.at(keep) if row.get("perplexity")]
    if not rows:
        return []
    ratios = {id(row): mean_log_ratio(row, rows[0], named.texts) for row in rows}
    return sorted((row for row in rows if ratios[id(row)] is not None), key=lambda row: ratios[id(row)] or 0.0)


def certainty(first: Row, second: Row, named: Named) -> str:
    """How sure it is that two rows' perplexities differ: paired over windows where they are kept, else their errors."""
    other, scores = named.line(second), named.sources.scores()
    tested = second["method"] in named.sources.baselines  # then by the bench, whose windows may be gone
    shared = [text for text in named.texts if text in first["perplexity"] and text in second["perplexity"]]
    gaps = {text: difference(first, second, text, scores) for text in shared}
    known = {
        text: gap.p if gap.paired else p_of(first, second["method"], "perplexity", text) if tested else None
        for text, gap in gaps.items()
    }
    sure, unsure = (
        [f"{named.text(text)} ({p_words(p)})" for text, p in known.items() if p is not None and (p < LEVEL) == less]
        for less in (True, False)
    )
    if sure or unsure:
        return _paired_words(other, sure, unsure)
    apart = [named.text(text) for text, gap in gaps.items() if gap.sign]
    within = [named.text(text) for text, gap in gaps.items() if not gap.sign and gap.stderr is not None]
    if not apart and not within:
        return ""
    if not apart:
        return f"The difference to {other} lies within the errors of both on {listed(within)}."
    more = f"The difference to {other} is larger than the errors of both on {listed(apart)}"
    return more + (f", within them on {listed(within)}." if within else ".")


def _paired_words(other: str, sure: list[str], unsure: list[str]) -> str:
    said = f"The difference to {other} is more than chance on {listed(sure)}" if sure else ""
    if unsure:
        said += ("; it " if sure else f"The difference to {other} ") + f"may be chance on {listed(unsure)}"
    return f"{said}: paired over the same windows."
