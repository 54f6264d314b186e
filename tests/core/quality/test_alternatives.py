"""Why not just quantise: the answer follows from the rows, whichever it is."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from lrc_core.quality.alternatives import QUESTION, difference, why_not_quantise
from lrc_core.quality.paired import log_perplexity
from lrc_core.quality.rows import Scores, completed
from lrc_core.quality.tables import marks


def row(method: str, value: float, share: float, **more: Any) -> dict[str, Any]:
    score = {"value": value, "stderr": 0.001 * value}
    return {
        "method": method, "keep_target": 0.8, "bytes_share": share, "perplexity": {"c4": score}, "run_id": "", **more
    }  # fmt: skip


DENSE, EIGHT, FOUR = row("dense", 20, 1), row("q8_0", 20.1, 0.53), row("q4_0", 25, 0.28)


@pytest.mark.parametrize(
    ("plan", "answer", "format_named"),
    [
        (row("lagrangian", 26, 0.8), "Do", "Q8_0"),
        (row("lagrangian", 26, 0.3), "Do", "Q4_0"),
        (row("lagrangian", 21, 0.3), "There is a reason", "Q4_0"),
        (row("lagrangian", 20.11, 0.6), "Not decided", "Q8_0"),
        (row("lagrangian", 26, 0.2), "No format that was measured is as small", "Q4_0"),
    ],
)
def test_the_answer_is_that_of_the_rows(plan: dict[str, Any], answer: str, format_named: str) -> None:
    said = why_not_quantise([DENSE, EIGHT, FOUR, plan])
    assert said.startswith(f"{QUESTION} {answer}") and format_named in said
    assert ("Q8_0" in said) == (format_named == "Q8_0")


def test_what_was_not_measured_is_said() -> None:
    assert "not measured" in why_not_quantise([DENSE, row("llrc", 30, 0.8)])
    assert why_not_quantise([DENSE, EIGHT]) == ""
    failed = {**row("q8_0", 20, 0.5), "error": "broken"}
    assert "not measured" in why_not_quantise([failed, row("llrc", 30, 0.8)])


def keep_windows(root: Path, losses: dict[str, list[float]]) -> None:
    """Losses of every window of 100 tokens of ``c4``, by run."""
    for name, found in losses.items():
        (root / name).mkdir()
        windows = {"c4": {"losses": found, "tokens": [100] * len(found), "digest": "x"}}
        (root / name / "scores.json").write_text(json.dumps({"windows": windows, "tasks": {}}))


@pytest.mark.parametrize("seed", range(12))
def test_sentences_call_more_than_chance_what_the_signs_of_a_table_do(seed: int, tmp_path: Path) -> None:
    """Over few windows two standard errors are easily chance: the t-test of the signs decides in sentences too."""
    draw = random.Random(seed)
    windows = draw.randint(2, 6)
    found = {name: [300.0 + draw.gauss(shift, 5.0) for _ in range(windows)] for name, shift in (("a", 7.0), ("b", 0.0))}
    keep_windows(tmp_path, found)
    dense, other = row("dense", 20.0, 1.0, run_id="b"), row("llrc", 21.0, 0.8, run_id="a")
    (tested,) = completed([other], lambda *_: {"dense": dense}, Scores(tmp_path))
    gap = difference(other, dense, "c4", Scores(tmp_path))
    assert bool(gap.sign) == bool(marks(tested, ["dense"], "perplexity", "c4"))
    assert gap.sign in (0, math.copysign(1, gap.value))
    assert difference(tested, dense, "c4").sign == gap.sign, "also where only the recorded test is left"


def test_errors_are_paired_where_windows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that move together tell apart what their own errors cannot."""
    losses = {"evaluate-a": [300.0, 200.0, 100.0, 250.0], "evaluate-b": [295.0, 196.0, 97.0, 246.0]}
    tokens = [100] * 4
    keep_windows(tmp_path, losses)
    rows = [
        row(method, math.exp(sum(losses[name]) / sum(tokens)), share, run_id=name)
        for method, name, share in (("lagrangian", "evaluate-a", 0.6), ("q8_0", "evaluate-b", 0.53))
    ]
    for one in rows:
        one["perplexity"]["c4"]["stderr"] = one["perplexity"]["c4"]["value"]
    assert "Not decided" in why_not_quantise(rows)
    found = difference(*rows, "c4", Scores(tmp_path))
    assert (found.value, found.stderr) == pytest.approx(
        (0.04, log_perplexity(losses["evaluate-a"], losses["evaluate-b"], tokens).stderr)
    )
    assert "Do: Q8_0" in why_not_quantise(rows, Scores(tmp_path))
    monkeypatch.setenv("LRC_SAMPLES", str(tmp_path))
    assert "Do: Q8_0" in why_not_quantise(rows, Scores(tmp_path / "own")), "those of shipped runs count as well"
