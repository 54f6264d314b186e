"""The tables of the starter's bench and ablations as they ship, read into rows that charts can draw. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrc_core.digests import stamp_of
from lrc_core.names import method_label
from lrc_core.paths import app_home
from lrc_core.quality.variants import ALL, MIX, PARTS
from lrc_core.registry import ALLOCATORS
from lrc_core.words import measured, removed

BENCH, ABLATIONS = "bench_starter", ("ablation_llrc_ara", "ablation_successive")
"""Names of the tables."""
COMMANDS = {
    BENCH: "lrc bench quality starter --keep 0.9 0.8 0.7 0.6 --decomposition kfac whitened --preset bench "
    "--storage pair --against uniform strs successive",
    ABLATIONS[0]: "lrc bench ablation starter --keep 0.8 --methods llrc ara",
    ABLATIONS[1]: "lrc bench ablation starter --keep 0.8 --methods successive --decomposition kfac",
}
"""What computed them, as docs/results.md has it."""
MACHINE, COMPUTED = "one NVIDIA H100 with PyTorch 2.11, up to 18 at a time", "22 November 2026"
"""On what the cells were computed, as docs/results.md has it, and when the tables were written."""
_SIZES = ("kept", "linears / model kept")
_NUMBER = re.compile(r"[-+]?\d[\d.]*")
_MEASURED = re.compile(r"([\d.,]+)(?: ± ([\d.,]+))?([^\d.,\w–]*)")
"""A figure with its error and the signs behind it, as a cell has them."""


@dataclass(frozen=True, eq=False)  # one object a table, which pictures of it are kept by
class ShippedTable:
    """A table of measurements that came with the program.

    Attributes:
        name: of its file.
        cells: every cell for reading, by column; with signs of significance.
        rows: the same in numbers, as a bench has them.
        figures: the same in numbers, as other programs read them: errors and signs in columns of their own.
        legend: what the signs and errors mean, and how it was measured.
        notes: remarks on single cells.
        markdown: the whole file.
    """

    name: str
    cells: tuple[dict[str, str], ...]
    rows: tuple[dict[str, Any], ...]
    figures: tuple[dict[str, Any], ...]
    legend: str
    notes: tuple[str, ...]
    markdown: str


def shipped_table(name: str) -> ShippedTable | None:
    """A shipped table; None where the program was installed without it."""
    path = app_home() / "docs" / f"{name}.md"
    return _read(path, stamp_of(path)) if path.is_file() else None


@lru_cache(maxsize=len(COMMANDS))
def _read(path: Path, stamp: tuple[int, int]) -> ShippedTable:
    return parsed_table(path.stem, path.read_text(encoding="utf-8"))


def parsed_table(name: str, markdown: str) -> ShippedTable:
    """A table as the bench prints it: perplexities first, then accuracies of some of the same rows."""
    lines = markdown.splitlines()
    blocks = [block for block in re.split(r"\n\s*\n", markdown) if block.startswith("|")]
    first, *others = [_cells(block) for block in blocks]
    more = {_key(row): row for block in others for row in block}
    cells = tuple(
        {**row, **{key: value for key, value in more.get(_key(row), {}).items() if key not in row}} for row in first
    )
    legend = next((line for line in lines if line.startswith("Perplexity ±")), "")
    prompt = next((place for place, line in enumerate(lines) if line.startswith("“")), len(lines))
    notes = tuple(line[2:] for line in lines[:prompt] if line.startswith("- "))
    rows = tuple(_row(row) for row in cells)
    shown = tuple(_as_sure(row, found) for row, found in zip(cells, rows, strict=True))
    return ShippedTable(name, shown, rows, _figures(cells, rows), legend, notes, markdown)


def _figures(cells: Sequence[dict[str, str]], rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Shares between 0 and 1; of every other cell that begins with a number that number, its error and its signs."""
    found: list[dict[str, Any]] = []
    for printed, row in zip(cells, rows, strict=True):
        record: dict[str, Any] = {"kept": row["keep_target"], "linears kept": row["keep_achieved"]}
        record |= {"model kept": row["keep_whole_model"]}
        for name, cell in printed.items():
            if name in _SIZES:
                continue
            figure = _MEASURED.fullmatch(cell)
            if figure is None:
                record[name] = "" if cell == "–" else cell
                continue
            value, error, signs = figure.groups()
            if error is None:
                record[name] = float(value)
                continue
            column = f"{name}, perplexity" if name in row["perplexity"] else f"{name}, % right"
            record |= {
                column: float(value.replace(",", "")),
                f"{column}, standard error": float(error.replace(",", "")),
            }
            record[f"{column}, signs"] = signs.strip()
        found.append(record)
    columns = dict.fromkeys(name for record in found for name in record)
    return tuple({name: record.get(name, "") for name in columns} for record in found)


def _as_sure(cells: dict[str, str], row: dict[str, Any]) -> dict[str, str]:
    """The printed cells with every perplexity to the place that its error allows, and sizes by what is removed."""
    sure = {
        text: measured(score["value"], score["stderr"]) + cells[text].lstrip("0123456789.,± ")
        for text, score in row["perplexity"].items()
    }
    gone = [removed(row[key], 2) for key in ("keep_target", "keep_achieved", "keep_whole_model")]
    rest = {name: cell for name, cell in cells.items() if name not in _SIZES}
    return {"removed": gone[0], "linears / model removed": " / ".join(gone[1:]), **rest, **sure}


def _cells(block: str) -> list[dict[str, str]]:
    """Rows of a Markdown table by column; a column of ratios is named after the text before it."""
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    names = [f"× dense, {header[place - 1]}" if name == "× dense" else name for place, name in enumerate(header)]
    return [dict(zip(names, row, strict=True)) for row in body]


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return row["kept"], row["method"], row.get("decomposition", "")


def _row(cells: dict[str, str]) -> dict[str, Any]:
    """One row in numbers: shares between 0 and 1, perplexities and accuracies with their standard errors."""
    label, _, variant = cells["method"].partition(", ")
    linears, whole = (float(part) / 100 for part in cells["linears / model kept"].split(" / "))
    texts = [name.split(", ", 1)[1] for name in cells if name.startswith("× dense, ")]
    found: dict[str, Any] = {
        "method": _method(label),
        "decomposition": cells.get("decomposition", ""),
        "keep_target": float(cells["kept"].split()[0]) / 100,
        "keep_achieved": linears,
        "keep_whole_model": whole,
        "perplexity": {text: _score(cells[text]) for text in texts},
    }
    if cells.get("mean"):
        mean = _score(cells["mean"])
        found["zero_shot_mean"] = {key: value / 100 for key, value in mean.items()}
    if variant:
        part = PARTS[1] if variant.startswith("text ") else PARTS[0]
        found |= {"variant": variant, "part": part, "paired": {} if variant in (ALL, MIX) else {"base": {}}}
    return found


def _method(label: str) -> str:
    known = {method_label(name): name for name in ALLOCATORS.names()}
    return known.get(label, "dense")


def _score(cell: str) -> dict[str, float]:
    value, error = (float(found) for found in _NUMBER.findall(cell.replace(",", ""))[:2])
    return {"value": value, "stderr": error}
