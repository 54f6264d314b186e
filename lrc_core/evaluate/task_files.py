"""The starter pack's zero-shot items: read and drawn, and written as task files for lm-eval's own command line.

lm-eval has tasks of the same names, whose items it fetches from the hub and which differ in split or prompt (ARC: the
test split in place of this validation split), so that accuracies under one name are not the same measurement. Task
files of the pack's items make it one. No torch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lrc_core.errors import EvaluationError
from lrc_core.files import disk_errors, write_atomic

PREFIX = "pack_"
"""Before the name of a task in its file: lm-eval knows the bare name as another task."""
METRICS = ("acc", "acc_norm")


def read_documents(file: Path) -> list[dict[str, Any]]:
    """The items of one task: ``contexts`` and ``continuations``, one of each for every choice, and the ``gold`` index.

    Raises:
        EvaluationError: the file cannot be read, or is empty.
    """
    try:
        documents = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}", "Delete it; it is fetched again.") from error
    if not documents:
        raise EvaluationError(f"{file} holds no items.", "Delete it; it is fetched again.")
    return documents


def drawn(task: str, count: int, items: int, seed: int) -> list[int]:
    """Which of a task's ``count`` items are measured, in order: ``items`` of them drawn with ``seed``, 0 for all."""
    if not 0 < items < count:
        return list(range(count))
    return sorted(random.Random(f"{seed} {task}").sample(range(count), items))


def write_task_files(pack: Path, folder: Path, tasks: Sequence[str], items: int = 0, seed: int = 0) -> list[str]:
    """Write tasks of the pack so that ``lm_eval --include_path FOLDER`` asks what ``lrc evaluate`` asks.

    Args:
        pack: folder of ``<task>.jsonl``.
        folder: where a ``.yaml`` and a ``.jsonl`` go for each task; made where it is not there.
        items: items of each task, drawn with ``seed`` as an evaluation draws them; 0 for all.

    Returns:
        What lm-eval calls the tasks.

    Raises:
        EvaluationError: a file of the pack cannot be read.
        ResourceError: nothing can be written to ``folder``.
    """
    for task in tasks:
        documents = read_documents(pack / f"{task}.jsonl")
        chosen = [documents[index] for index in drawn(task, len(documents), items, seed)]
        data = folder.absolute() / f"{PREFIX}{task}.jsonl"
        lines = [json.dumps(task_item(document), ensure_ascii=False) for document in chosen]
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        # lm-eval would divide by the length of the contexts, which are no answers.
        metrics = METRICS[:1] if _in_context(documents) else METRICS
        definition = define_task(f"{PREFIX}{task}", documents, source, metrics)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(data, "\n".join(lines) + "\n")
            write_atomic(data.with_suffix(".yaml"), yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
    return [f"{PREFIX}{task}" for task in tasks]


def _in_context(documents: Sequence[dict[str, Any]]) -> bool:
    """Whether the choices of a task stand in the context, before one and the same continuation."""
    return all(len(set(document["continuations"])) == 1 for document in documents)


def task_item(document: dict[str, Any]) -> dict[str, Any]:
    """One item for the fields of a task, which puts the space between context and continuation itself."""
    continuations = [text.removeprefix(" ") for text in document["continuations"]]
    return {
        "context": document["contexts"][0],
        "contexts": document["contexts"],
        "continuation": continuations[0],
        "continuations": continuations,
        "gold": document["gold"],
    }


def define_task(
    name: str, documents: Sequence[dict[str, Any]], source: dict[str, Any], metrics: Sequence[str]
) -> dict[str, Any]:
    """lm-eval's definition of a task; choices in the context are what it calls multiple inputs.

    Args:
        name: what lm-eval is to call it.
        documents: its items, as the pack has them.
        source: where lm-eval finds them as :func:`task_item` makes them.
        metrics: what is measured of them.
    """
    asked = (
        {"doc_to_text": "gold", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
        if _in_context(documents)
        else {"doc_to_text": "context", "doc_to_choice": "continuations", "doc_to_target": "gold"}
    )
    return {
        "task": name,
        **source,
        "test_split": "test",
        "output_type": "multiple_choice",
        **asked,
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
        "metadata": {"version": 1},
    }
