"""Zero-shot accuracy through lm-eval: its tasks, the user's own, and seven that need no hub.

The only module that imports lm-eval (seconds): import it where it is used.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from datasets import Dataset
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from torch import Tensor, nn

from lrc_core.errors import CancelledError, EvaluationError, LrcError, NumericalError
from lrc_core.evaluate.forward import evaluating
from lrc_core.evaluate.likelihood import continuation_likelihoods
from lrc_core.evaluate.task_files import METRICS, define_task, drawn, read_documents, task_item
from lrc_core.models.pack.starter import TASKS, ensure_tasks
from lrc_core.texts.windows import wants_bos
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

_WITHOUT_HUB = f"These need no hub: {', '.join(TASKS)}."
_BOOTSTRAPS = 1000  # only for metrics whose standard error has no formula
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskScore:
    """Accuracy on one task.

    Attributes:
        acc: share of items whose most probable answer is right; None where the task has no such metric.
        acc_stderr: its standard error; None below two items.
        acc_norm: the same with log-probabilities divided by the answers' length in characters (lm-eval's definition).
        acc_norm_stderr: its standard error.
        n: items.
        other: a task's other metrics and their standard errors by lm-eval's names, e.g. ``exact_match``.
        items: 0 or 1 for every item, by metric (``acc``, ``acc_norm``), in the order of the items, which depends on
            task, number and seed only: for paired comparisons of two models. Empty for groups of tasks.
    """

    acc: float | None
    acc_stderr: float | None
    acc_norm: float | None
    acc_norm_stderr: float | None
    n: int
    other: Mapping[str, float | None] = field(default_factory=dict)
    items: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """One cell of a result row: accuracies, standard errors and n; other metrics only where there are any."""
        names = ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "n")
        row = {name: getattr(self, name) for name in names}
        return {**row, "other": dict(self.other)} if self.other else row


def zero_shot(  # noqa: PLR0913  what to run on, what to run and the two callbacks; each is one plain value
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    items: int = 100,
    seed: int = 0,
    include_path: str = "",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, TaskScore]:
    """Accuracy of a causal language model on multiple-choice tasks, without examples in the prompt.

    Names are looked up in this order: the task files below ``include_path``; the pack's own seven (``TASKS``),
    whose items always come from the starter pack, so that they need no hub and everybody gets the same ones; every
    task, tag or group of lm-eval, which fetches its data set from the hub. BOS is put before the text exactly where
    the tokenizer does so on its own. Log-probabilities are float32.

    Args:
        model: a Hugging Face causal LM, on any device.
        tokenizer: its tokenizer; not changed.
        items: items of each task (of each member of a group), drawn with ``seed``; 0 for all.
        seed: chooses the items.
        include_path: folder of the user's own lm-eval task files, or "".
        on_progress: called with the number of answers scored so far, of each task's.

    Returns:
        The score of each task; a tag, or a group without a score of its own, is replaced by its members.

    Raises:
        EvaluationError: a name is unknown (close ones are suggested), or a task cannot be loaded or run.
        NumericalError: a log-probability is not a number.
    """
    scores: dict[str, TaskScore] = {}
    if not tasks:
        return scores
    on_progress = _with_these_streams(on_progress)
    with evaluating(model), _quiet(), _seeded(seed):
        finder = _TaskFinder(include_path, on_progress, should_stop)
        # All are looked up first: a wrong last name must not cost the time of the others.
        loaded = {name: finder.load(name) for name in dict.fromkeys(tasks)}
        lm = _LanguageModel(model, tokenizer, on_progress, should_stop)
        for name, found in loaded.items():
            lm.phase = f"zero-shot: {name}"
            scores |= _run(lm, name, found, items, seed)
    return scores


def _run(lm: _LanguageModel, name: str, found: dict[str, Any], items: int, seed: int) -> dict[str, TaskScore]:
    """Run one name's tasks; ``found`` is what lm-eval's ``evaluate`` takes."""
    samples = {}
    for task_name, task in found["tasks"].items():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)
        count = len(task.eval_docs)
        if 0 < items < count:
            samples[task_name] = drawn(task_name, count, items, seed)
    try:
        # Not simple_evaluate: it asks the hub about the model, collects the machine's details and reseeds everything.
        results = evaluator.evaluate(
            lm, found, samples=samples or None, bootstrap_iters=_BOOTSTRAPS, log_samples=True, verbosity="ERROR"
        )
    except (LrcError, MemoryError, torch.OutOfMemoryError):
        raise
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"Task {name} cannot be run: {error}", "Check the task's definition.") from error
    # A group that only lists its members has an entry too, without items.
    names = [name] if "sample_len" in results["results"].get(name, {}) else list(found["tasks"])
    return {each: _score(each, results) for each in names}


def _score(name: str, results: dict[str, Any]) -> TaskScore:
    """One task's entry of lm-eval's results; of several answer filters the first counts."""
    values: dict[str, Any] = {}
    for key, value in results["results"][name].items():
        metric = key.partition(",")[0]
        if "," in key and metric not in values:
            values[metric] = float(value) if isinstance(value, int | float | np.number) else None
    accuracies = {key: values.pop(key, None) for key in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr")}
    samples = results["samples"].get(name, [])
    lists = {
        metric: tuple(int(sample[metric]) for sample in samples)
        for metric in ("acc", "acc_norm")
        if samples and all(sample.get(metric) in (0, 1) for sample in samples)
    }
    return TaskScore(**accuracies, n=int(results["results"][name]["sample_len"]), other=values, items=lists)


class _TaskFinder:
    """Finds tasks by name. lm-eval's own index takes many seconds to read, so it is read only when needed, and once."""

    def __init__(self, include_path: str, on_progress: OnProgress, should_stop: ShouldStop) -> None:
        if include_path and not Path(include_path).is_dir():
            raise EvaluationError(f"The folder of task files {include_path} does not exist.")
        self._include_path = include_path
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._own = TaskManager(include_path=include_path or None, include_defaults=False)

    def load(self, name: str) -> dict[str, Any]:
        """What lm-eval's ``evaluate`` takes: tasks and groups by name."""
        if name in TASKS and name not in self._own.all_tasks:
            return {"tasks": {name: _PackTask(name, ensure_tasks(self._on_progress, self._should_stop))}}
        # A group may name tasks of lm-eval's, which only the whole index knows.
        whole = name not in self._own.all_tasks or name in self._own.all_groups
        manager = self._whole_index() if whole else self._own
        if name not in manager.all_tasks:
            close = get_close_matches(name, sorted({*TASKS, *manager.all_tasks}), n=3)
            hint = f"Did you mean {' or '.join(close)}?" if close else _WITHOUT_HUB
            raise EvaluationError(f"There is no task {name!r}.", hint)
        try:
            return dict(manager.load([name]))
        except Exception as error:  # data sets are fetched here, and anything can go wrong with them
            raise EvaluationError(
                f"Task {name} cannot be loaded: {_first_line(error)}.",
                f"Is its data set within reach? {_WITHOUT_HUB}",
            ) from error

    def _whole_index(self) -> TaskManager:
        self._on_progress(Progress("reading lm-eval's list of tasks"))
        return _whole_index(self._include_path)


@functools.lru_cache(maxsize=2)
def _whole_index(include_path: str) -> TaskManager:
    return TaskManager(include_path=include_path or None)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


class _PackTask(ConfigurableTask):
    """A multiple-choice task from the starter pack, as its task file defines it."""

    def __init__(self, name: str, folder: Path) -> None:
        documents = read_documents(folder / f"{name}.jsonl")
        items = {"test": Dataset.from_list([task_item(document) for document in documents])}
        super().__init__(config=define_task(name, documents, {"custom_dataset": lambda **_: items}, METRICS))

    def process_results(self, doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
        """Accuracy, plain and by character: the same where choices stand in the context, before one answer."""
        found = super().process_results(doc, results)
        return {**found, "acc_norm": found["acc"]} if self.multiple_input else found


class _LanguageModel(HFLM):
    """lm-eval's view of the model: our own likelihoods, which share contexts, with progress and no silent NaN."""

    def __init__(self, model: nn.Module, tokenizer: Any, on_progress: OnProgress, should_stop: ShouldStop) -> None:
        # lm-eval gives a tokenizer without a pad token one.
        tokenizer = copy.deepcopy(tokenizer)
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=1,
            softmax_dtype="float32",
            add_bos_token=wants_bos("auto", tokenizer),
        )
        self.phase = "zero-shot"
        self._on_progress, self._should_stop = on_progress, should_stop

    def _loglikelihood_tokens(self, requests: Sequence[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        def on_batch(done: int) -> None:
            self._check_stop()
            self._on_progress(Progress(self.phase, done, len(requests)))

        too_long = sum(len(context) + len(continuation) > self.max_length + 1 for _, context, continuation in requests)
        if too_long:
            message = "%s: %d of %d texts lose their beginning: the model takes %d tokens."
            _log.warning(message, self.phase, too_long, len(requests), self.max_length)
        pairs = [(context, continuation) for _, context, continuation in requests]
        answers = continuation_likelihoods(self.model, pairs, on_batch=on_batch)
        for (texts, *_), (likelihood, _greedy) in zip(requests, answers, strict=True):
            if math.isnan(likelihood):
                raise NumericalError(
                    f"{self.phase}: the log-probability of {texts[1] if texts else 'a text'!r} is not a number.",
                    "Try float32 instead of a half precision; if it stays, the weights or factors are damaged.",
                )
        self._on_progress(Progress(self.phase, len(requests), len(requests)))
        return answers

    def _model_generate(self, *args: Any, **kwargs: Any) -> Tensor:
        self._check_stop()
        return super()._model_generate(*args, **kwargs)

    def _check_stop(self) -> None:
        if self._should_stop():
            raise CancelledError("The evaluation was cancelled.")


def _with_these_streams(on_progress: OnProgress) -> OnProgress:
    """The same callback, writing to today's streams even while lm-eval's are shut."""
    out, err = sys.stdout, sys.stderr

    def call(tick: Progress) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            on_progress(tick)

    return call


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval writes bars and notes to both streams and logs at length; standard output belongs to the command line."""
    noisy = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            # lm-eval's bootstrap would fork a process with a whole model in it on every core.
            mock.patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"}),
        ):
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Fixed global random states, put back afterwards: a task's own code may draw from them."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
