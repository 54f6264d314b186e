"""Making the sample runs that the app ships: real runs of the starter model, cut down to what pages read.

``python -m tests.samples`` runs what is missing and rewrites ``assets/samples``.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lrc_core.budget import USUAL_KEEP, same_size, size_key
from lrc_core.errors import RunError
from lrc_core.formats.grids import QUANTISED
from lrc_core.jobs import manager
from lrc_core.paths import samples_home
from lrc_core.plan import Plan
from lrc_core.quality.quantised import compresses
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import (
    AllocateSpec,
    AnswerSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    GenerateSpec,
    LessonSpec,
    SamplingSpec,
    SpectraSpec,
)
from lrc_core.runs.store import Run, RunStore

TASKS = ("arc_easy", "piqa")
SPECTRA = SpectraSpec(decompositions=("svd", "asvd", "whitened", "kfac"), subspaces=True)
COMPARISON = CompareSpec(
    keeps=(0.9, 0.8, 0.7), presets={"llrc": "standard"}, evaluation=EvaluationSpec(tasks=TASKS, items=100)
)
"""The paper's method and what it was compared with, as papers count: in pairs, on whitened factors."""
BASELINES = replace(
    COMPARISON,
    presets={},
    keeps=(0.95, 0.9, 0.8, 0.7, 0.6),
    decomposition="kfac",
    storage="pivoted",
    contents=(("code llrc", "2"),),
)
"""What the plans that lose least are to be compared with: on their factors, stored as theirs; LLRC briefly trained."""
CLOSED_FORM = replace(BASELINES, methods=("lagrangian",), contents=())
"""What is quickest."""
BEST = replace(CLOSED_FORM, update="tuned", formats=QUANTISED)
"""The least loss where there is one to take back, beside number formats alone."""
MIXTURES = tuple(
    AllocateSpec(
        method="lagrangian",
        decomposition="kfac",
        keep=1.0,
        preset="quick",
        settings=asdict(ALLOCATORS.get("lagrangian").settings("quick")),
        budget=f"bytes:{share}",
        storage="pivoted",
    )
    for share in ("0.45", "0.3")
)
"""Ranks and number formats together, at fewer bytes than formats alone reach at their loss."""
COMPARISONS = (COMPARISON, BASELINES, CLOSED_FORM, BEST)
LESSON = LessonSpec()
PROMPT, LONGEST = "Explain in two sentences why the sky is blue.", 96
"""What the dense model and the plans at one target are asked."""
PROMPTS = (
    "Write a short note to a neighbour who feeds your cat while you are away.",
    "What should I pack for three days in the mountains?",
    "What is the capital of France, and what is it known for?",
    "How do plants make their food?",
    "Give three tips for sleeping better.",
    "Explain to a child why leaves fall in autumn.",
    "Write the first lines of a story about a lighthouse keeper.",
    "Rewrite this in formal English: hey, can't make it today, sorry!",
    "Write a Python function that returns the larger of two numbers.",
    "A train leaves at 9:40 and arrives at 11:15. How long does the journey take?",
)
"""What the dense model and the best plan at every rate are asked."""
OPENINGS = PROMPTS[2:4]
"""What uniform plans are asked as well; Home begins with the last."""
_COPIED = (
    "spec.json", "card.json", "plan.json", "scores.json", "lesson.json", "pictures.npz", "subspaces.json",
    "answers.jsonl",
)  # fmt: skip
_SNAPSHOTS, _EVENTS = 40, 200  # lines kept of ranks.jsonl and events.jsonl
_DROPPED_BITS = 10  # of the float32 mantissa of spectra: 4 significant digits remain, and half the size


def shipped_runs(store: RunStore, comparison: Run) -> list[Run]:
    """The comparison, its rows' evaluations, and the allocations and updates behind them."""
    rows = (comparison.result() or {})["rows"]
    names = ("run_id", "allocate_run_id", "update_run_id")
    wanted = {row[name] for row in rows for name in names if row.get(name)}
    return [comparison, *(store.open(run_id) for run_id in sorted(wanted))]


def measured(run: Run) -> EvaluateSpec:
    """The plan of an allocation, measured as the comparisons are."""
    plan = Plan.load(run.path / "plan.json").to_dict()
    return EvaluateSpec(plan=plan, calibration=COMPARISON.calibration, evaluation=COMPARISON.evaluation)


def ask(store: RunStore, prompt: str, compared: Sequence[Run], wanted: Callable[[Any], bool]) -> GenerateSpec:
    """A prompt to the dense model and to the plans behind those rows of comparisons that are wanted."""
    answers = [AnswerSpec()]
    for row in (row for run in compared for row in (run.result() or {})["rows"]):
        spec = store.open(row["run_id"]).spec
        if isinstance(spec, EvaluateSpec) and spec.plan and wanted(row):
            answers.append(AnswerSpec(spec.plan, spec.plan_folder, spec.calibration))
    return GenerateSpec(prompt=prompt, answers=tuple(answers), sampling=SamplingSpec(max_new_tokens=LONGEST))


def first_questions(store: RunStore) -> list[GenerateSpec]:
    """To the compared plans at the usual size, and to uniform at every size."""
    compared, baselines = (store.open(spec.run_id) for spec in (COMPARISON, BASELINES))
    return [
        ask(store, PROMPT, [compared], lambda row: same_size(row["keep_target"], USUAL_KEEP)),
        *(ask(store, prompt, [baselines], lambda row: row["method"] == "uniform") for prompt in OPENINGS),
    ]


def talks(store: RunStore, compared: Sequence[Run]) -> list[GenerateSpec]:
    """Every prompt to the dense model and to the plans at all rates, each from the last comparison that has it."""
    rows = [row for run in compared for row in (run.result() or {})["rows"] if compresses(row)]
    specs = {size_key(row["keep_target"]): store.open(row["run_id"]).spec for row in rows}
    plans = [spec for _, spec in sorted(specs.items(), reverse=True) if isinstance(spec, EvaluateSpec) and spec.plan]
    answers = (AnswerSpec(), *(AnswerSpec(spec.plan, spec.plan_folder, spec.calibration) for spec in plans))
    return [
        GenerateSpec(prompt=prompt, answers=answers, sampling=SamplingSpec(max_new_tokens=LONGEST))
        for prompt in PROMPTS
    ]


def copy_sample(run: Run, destination: Path) -> None:
    """Copy what pages read of a finished run; process, host and log stay behind.

    Args:
        run: a finished run.
        destination: folder of samples; the run's own folder in it is replaced.
    """
    folder = destination / run.id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _COPIED:
        # The card of what is only measured or asked is that of its allocation, and a seventh of all bytes.
        spared = name == "card.json" and isinstance(run.spec, EvaluateSpec | GenerateSpec)
        if (run.path / name).exists() and not spared:
            _copy(run.path / name, folder / name)
    if (run.path / "plans").is_dir():
        shutil.copytree(run.path / "plans", folder / "plans")
    for name, lines in (("ranks.jsonl", _SNAPSHOTS), ("events.jsonl", _EVENTS)):
        _thin(run.path / name, folder / name, lines)
    if (run.path / "spectra.npz").exists():
        _round_spectra(run.path / "spectra.npz", folder / "spectra.npz")
    copy = Run(folder)
    copy.write_result(_without_paths(run.result() or {}))
    copy.write_status(
        replace(run.status(), pid=None, pid_started=0.0, pid_birth="", host="", digests={})
    )  # of the copies, anew


def _copy(source: Path, target: Path) -> None:
    """Copy a file; JSON without its spaces, a third of it."""
    if source.suffix != ".json":
        shutil.copyfile(source, target)
        return
    data = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")


def _thin(source: Path, target: Path, count: int) -> None:
    """Keep ``count`` lines spread evenly, the first and the last among them."""
    if not source.exists():
        return
    lines = source.read_text(encoding="utf-8").splitlines()
    chosen = sorted({round(i) for i in np.linspace(0, len(lines) - 1, min(count, len(lines)))}) if lines else []
    target.write_text("".join(lines[i] + "\n" for i in chosen), encoding="utf-8")


def _round_spectra(source: Path, target: Path) -> None:
    with np.load(source) as arrays:
        rounded = {name: _rounded(arrays[name]) for name in arrays.files}
    np.savez_compressed(target, **rounded)


def _rounded(values: Any) -> Any:
    bits = values.astype(np.float32).view(np.uint32)
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    return ((bits + half) & np.uint32(0xFFFFFFFF << _DROPPED_BITS & 0xFFFFFFFF)).view(np.float32)


def _without_paths(result: dict[str, Any]) -> dict[str, Any]:
    """A result in which no string is a path of the machine that made it."""
    home = str(Path.home())
    text = json.dumps(result)
    return result if home not in text else json.loads(text.replace(home, "~"))


def main() -> int:
    """Run what is missing, one job after the other, and rewrite the samples."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    store = RunStore()
    for spec in (SPECTRA, *COMPARISONS, LESSON):
        _finish(manager.submit(spec).id)
    mixed = [_finish(manager.submit(spec).id) for spec in MIXTURES]
    mixed += [_finish(manager.submit(measured(run)).id) for run in mixed]
    asked = [
        *first_questions(store),
        *talks(store, [store.open(spec.run_id) for spec in (CLOSED_FORM, BEST)]),
    ]
    answered = [_finish(manager.submit(spec).id) for spec in asked]
    runs = {run.id: run for run in (store.open(SPECTRA.run_id), store.open(LESSON.run_id), *mixed, *answered)}
    for spec in COMPARISONS:
        runs |= {run.id: run for run in shipped_runs(store, store.open(spec.run_id))}
    shutil.rmtree(samples_home(), ignore_errors=True)
    for run in runs.values():
        copy_sample(run, samples_home())
        logging.getLogger(__name__).info("copied %s", run.id)
    return 0


def _finish(run_id: str) -> Run:
    """The run when it is done.

    Raises:
        RunError: it ended without a result.
    """
    while not (status := manager.poll(run_id)).final:
        time.sleep(2)
    if status.state != "done":
        raise RunError(f"Run {run_id} is {status.state}: {status.error}", f"See `lrc runs show {run_id}`.")
    return RunStore().open(run_id)


if __name__ == "__main__":
    sys.exit(main())
