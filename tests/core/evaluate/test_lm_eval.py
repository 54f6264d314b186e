"""lm-eval's own command line on an exported folder: item by item what ``lrc evaluate`` finds of the plan."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest

from lrc_core.cli import main
from lrc_core.evaluate import zero_shot
from lrc_core.evaluate.task_files import PREFIX, write_task_files
from lrc_core.folders import reload
from lrc_core.plan import Plan
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, EvaluateSpec, EvaluationSpec, ExportSpec, ModelRef
from tests.factories.pipeline_helpers import result_of, run

TASKS = ("arc_easy", "hellaswag", "winogrande")
ITEMS = 9
Items = dict[str, dict[str, tuple[int, ...]]]
"""0 or 1 for every item, by metric, by task."""


def documents(task: str) -> list[dict[str, Any]]:
    """Made-up items with what is awkward in a template, in a path of YAML, and in the length of an answer."""
    draw = random.Random(task)
    found = []
    for number in range(14):
        picked = draw.sample(["{{rank}}", " two spaces", "a: b", "the layer's", "é – ü", "%s of it", "12"], 4)
        question = f"{number}. {'{% if %}' if number % 2 else 'What'} is {' '.join(draw.sample(picked, 2))}?\nAnswer:"
        contexts, continuations = [question] * 4, [f" {word}" for word in picked]
        if task == "winogrande":
            contexts, continuations = [f"{question} {word}" for word in picked[:2]], [" keeps what it was."] * 2
        gold = draw.randrange(len(contexts))
        found.append({"doc_id": number, "contexts": contexts, "continuations": continuations, "gold": gold})
    return found


@dataclass(frozen=True)
class Exported:
    """A plan as a folder, the items, and what ``lrc evaluate`` finds of them."""

    folder: Path
    pack: Path
    found: Items


@pytest.fixture(scope="module")
def exported(
    model: ModelRef, calibration: CalibrationSpec, texts: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    home = tmp_path_factory.mktemp("exported")
    (home / "pack").mkdir()
    for task in TASKS:
        lines = [json.dumps(document) + "\n" for document in documents(task)]
        (home / "pack" / f"{task}.jsonl").write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRC_RUNS", str(home / "runs"))
        patch.setenv("LRC_CACHE", str(home / "cache"))
        patch.setattr(zero_shot, "ensure_tasks", lambda *_: home / "pack")
        patch.setattr("lrc_core.folders.check._asked", lambda question, _: {**reload.main(question), "alone": True})
        spec = AllocateSpec(model, keep=0.6, decomposition="svd", calibration=calibration, storage="pivoted")
        plan = Plan.load(run(spec).path / "plan.json").to_dict()
        result_of(run(ExportSpec(model, plan, "", calibration, to=str(home / "small"))))
        wanted = EvaluationSpec((texts[1],), window=48, max_windows=2, tasks=TASKS, items=ITEMS, seed=3)
        scores = json.loads((run(EvaluateSpec(model, plan, "", calibration, wanted)).path / "scores.json").read_text())
    items = {task: {name: tuple(got) for name, got in scores["tasks"][task]["items"].items()} for task in TASKS}
    return Exported(home / "small", home / "pack", items)


def theirs(folder: Path) -> Items:
    """What lm-eval wrote of every item."""
    found: Items = {}
    for file in folder.rglob("samples_*.jsonl"):
        (task,) = (name for name in TASKS if file.name.startswith(f"samples_{PREFIX}{name}_"))
        samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        metrics = ("acc",) if task == "winogrande" else ("acc", "acc_norm")
        found[task] = {metric: tuple(int(sample[metric]) for sample in samples) for metric in metrics}
    return found


def command(folder: Path, tasks: list[str], out: Path, *more: str) -> list[str]:
    """The words behind ``lm_eval``, as docs/export.md has them."""
    model_args = ",".join([f"pretrained={folder}", "softmax_dtype=float32", *more])
    words = ["--model", "hf", "--model_args", model_args, *tasks, "--device", "cpu", "--batch_size", "4"]
    return [*words, "--output_path", str(out), "--log_samples"]


def test_it_scores_every_item_as_this_program_does(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``lrc tasks`` writes the items, ``python -m lrc_core.hf lm_eval`` asks them."""
    monkeypatch.setattr("lrc_core.cli.doctor.ensure_tasks", lambda *_: exported.pack)
    words = ["tasks", str(tmp_path / "asked: of it"), "--tasks", *TASKS, "--items", str(ITEMS), "--seed", "3", "--json"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    # The index of lm-eval's own tasks takes seconds to read.
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(lm_eval.tasks.TaskManager, include_defaults=False))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    asked = ["--include_path", made["folder"], "--tasks", ",".join(made["tasks"])]
    monkeypatch.setattr(sys, "argv", ["-", "lm_eval", *command(exported.folder, asked, tmp_path / "out")])
    runpy.run_module("lrc_core.hf", run_name="__main__")
    found = theirs(tmp_path / "out")
    assert {len(items) for task in found.values() for items in task.values()} == {ITEMS}
    for task, metrics in found.items():
        assert metrics == {name: exported.found[task][name] for name in metrics}, task


STRANGER = """
import functools, sys
import lm_eval.tasks
lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
assert not any(name.split(".")[0] == "lrc_core" for name in sys.modules)
"""


def test_the_folders_own_loader_is_enough(exported: Exported, tmp_path: Path) -> None:
    """A process that does not know this program, with ``trust_remote_code=True``."""
    names = write_task_files(exported.pack, tmp_path / "asked", TASKS[:1], ITEMS, seed=3)
    asked = ["--include_path", str(tmp_path / "asked"), "--tasks", *names]
    words = command(exported.folder, asked, tmp_path / "out", "trust_remote_code=True")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, *words], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = theirs(tmp_path / "out")
    assert found == {TASKS[0]: exported.found[TASKS[0]]}


def test_tasks_that_the_pack_has_not_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc_core.cli.doctor.ensure_tasks", lambda *_: tmp_path)
    assert main(["tasks", str(tmp_path / "to"), "--tasks", "piqa", "arc_esy"]) != 0
    assert not (tmp_path / "to").exists()


def test_the_block_names_its_producer_as_others_read_it(exported: Exported) -> None:
    """vLLM reads ``producer.name`` of every block before it looks at the method."""
    block = json.loads((exported.folder / "config.json").read_text())["quantization_config"]
    assert set(block["producer"]) == {"name", "version"}
