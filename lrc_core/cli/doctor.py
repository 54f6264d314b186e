"""Commands about this machine and what is on it: ``lrc doctor``, ``lrc starter``, ``lrc tasks``, ``lrc bench``."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from lrc_core import __version__
from lrc_core.cli.bench.scale import costs_of, print_costs
from lrc_core.cli.follow import ProgressLine
from lrc_core.cli.output import answer, emit, emit_table, note
from lrc_core.errors import LrcError, SettingsError
from lrc_core.evaluate.task_files import write_task_files
from lrc_core.jobs.cache import cached, clean_cache, runs_size
from lrc_core.kinds.words.flags import absolute_text, model_ref
from lrc_core.models.pack.starter import TASKS, ensure_tasks, fetch_all, pack_status
from lrc_core.models.preflight import Preflight, preflight
from lrc_core.models.resources import cpu_memory_available, disk_available
from lrc_core.paths import cache_home, expanded, require_cache, runs_home
from lrc_core.quality.published import published_words
from lrc_core.quality.sizing import MEMORIES, context_words, fitting_words, sizings
from lrc_core.runs.store import RunStore
from lrc_core.texts.documents import preview_of
from lrc_core.words import count, data_size


def doctor(arguments: argparse.Namespace) -> None:
    """``lrc doctor``: what this machine offers and a model needs; ``--clean`` removes what can be computed again."""
    removed = clean_cache() if arguments.clean else None
    model = preflight(model_ref(arguments))
    report = {**examine(), "model": model.to_dict(), "costs": costs_of(model, arguments.gpu or ())}
    report["sizes"] = [asdict(one) for one in sizings(model.sizes)] if model.sizes else []
    report["cache"]["problem"] = _cache_problem()
    report["texts"] = {name: _understood(name) for name in arguments.text or ()}
    if removed is not None:
        report["removed_bytes"] = removed
    answer(arguments, report, partial(_print, model=model))


def starter(arguments: argparse.Namespace) -> None:
    """``lrc starter``: fetch what is missing of the starter pack."""
    with ProgressLine() as line:
        fetch_all(line.on_progress)
    answer(arguments, {"parts": [asdict(part) for part in pack_status()]}, lambda found: _print_parts(found["parts"]))


def bench(arguments: argparse.Namespace) -> None:
    """``lrc bench NAME``: ``{"name", "ratio", "meaning", "baseline_s", "candidate_s", "detail"}``."""
    module = "layer" if arguments.name == "layer" else "speed"
    measure = getattr(import_module(f"lrc_core.bench.{module}"), arguments.name.replace("-", "_"))
    with ProgressLine() as line:
        found: Mapping[str, Any] = measure(model_ref(arguments), on_progress=line.on_progress)
    answer(arguments, found, _print_speed)


def _print_speed(found: Mapping[str, Any]) -> None:
    emit(f"{found['name']}: {found['ratio']:.2f}  ({found['meaning']})")
    emit(f"baseline {found['baseline_s']:.2f} s, candidate {found['candidate_s']:.2f} s")


def examine() -> dict[str, Any]:
    """Everything ``lrc doctor`` tells, JSON-able."""
    import torch

    from lrc_core.models.device import pick_device, pick_dtype

    device = pick_device()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "dtype": str(pick_dtype(device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_available_bytes": cpu_memory_available(),
        "cache": {
            "folder": str(cache_home()),
            "disk_available_bytes": disk_available(cache_home()),
            "entries": [asdict(entry) for entry in cached()],
        },
        "runs": {
            "folder": str(runs_home()),
            "disk_available_bytes": disk_available(runs_home()),
            "count": len(RunStore().ids()),
            "bytes": runs_size(RunStore()),
        },
        "starter": [asdict(part) for part in pack_status()],
    }


def _print(report: dict[str, Any], model: Preflight) -> None:
    emit(f"lrc {report['version']}, Python {report['python']}, torch {report['torch']}")
    emit(f"device   {report['device']} ({report['device_name']}), {report['dtype']}")
    emit(f"threads  {report['threads']} on {report['cores']} cores")
    emit(f"memory   {data_size(report['memory_available_bytes'])} available")
    for name in ("cache", "runs"):
        part = report[name]
        emit(f"{name:<8} {part['folder']}, {data_size(part['disk_available_bytes'])} free on its disk")
        if problem := part.get("problem"):
            note(problem)
    emit(f"         {report['runs']['count']} runs, {data_size(report['runs']['bytes'])}")
    emit()
    _print_model(report["model"])
    if model.sizes is not None:
        _print_sizes(model)
    print_costs(report["costs"], report["model"])
    for name, words in report["texts"].items():
        emit(f"text     {name}: {words}")
    emit()
    _print_parts(report["starter"])
    if "removed_bytes" in report:
        emit(f"\nRemoved {data_size(report['removed_bytes'])} of cached results.")
    if entries := report["cache"]["entries"]:
        emit()
        emit_table(
            ["cached", "model", "what", "size"],
            [[entry["kind"], entry["model"] or "–", entry["what"], data_size(entry["bytes"])] for entry in entries],
        )
        note("`lrc doctor --clean` removes what is cached; it is computed again when needed.")


def _cache_problem() -> str:
    try:
        require_cache()
    except LrcError as error:
        return str(error)
    return ""


def _understood(name: str) -> str:
    """A preview of a text, or why it cannot be used."""
    try:
        return preview_of(absolute_text(name))
    except LrcError as error:
        return str(error)


def _print_model(found: dict[str, Any]) -> None:
    """What a model needs, before anything is computed."""
    emit(f"model    {found['source']}: {found['architecture'] or 'unknown'}, {count(found['params'])} parameters")
    emit(
        f"         needs about {data_size(found['memory_needed'])} of memory to learn its ranks, and "
        f"{data_size(found['disk_needed'])} of disk for what is to be fetched and one decomposition"
    )
    for problem in (*found["problems"], *found["warnings"]):
        note(f"{found['source']}: {problem}")


def _print_sizes(model: Preflight) -> None:
    """What the model weighs at every rate, which cards hold it, and what is known of the quality."""
    assert model.sizes is not None
    found = sizings(model.sizes)
    emit_table(
        ["as it is served", "weights", "with cache", *(f"{memory} GB" for memory in MEMORIES)],
        [
            [one.name, data_size(one.size.weights), data_size(one.size.total)]
            + ["fits" if one.fits(memory) else "–" for memory in MEMORIES]
            for one in found
        ],
    )
    note(f"{fitting_words(found)} Counted for {context_words(model.sizes)}.")
    if model.kind != "starter":
        note(published_words(model.params))


def task_files(arguments: argparse.Namespace) -> None:
    """``lrc tasks``: the pack's zero-shot items for lm-eval's own command line."""
    with ProgressLine() as line:
        pack = ensure_tasks(line.on_progress)
    wanted = arguments.tasks or list(TASKS)
    if unknown := sorted(set(wanted) - set(TASKS)):
        raise SettingsError(f"The starter pack has no task {unknown[0]!r}.", f"It has {', '.join(TASKS)}.")
    folder = Path(expanded(arguments.folder)).absolute()
    names = write_task_files(pack, folder, wanted, arguments.items, arguments.seed)
    words = shlex.join(["--include_path", str(folder), "--tasks", ",".join(names)])
    answer(arguments, {"folder": str(folder), "tasks": names}, lambda _: emit(words))


def _print_parts(parts: list[dict[str, Any]]) -> None:
    emit_table(
        ["starter pack", "state", "size", "licence"],
        [
            [
                part["label"],
                "present" if part["present"] else "missing (`lrc starter`)",
                data_size(part["bytes"] or part["download_bytes"]),
                part["licence"],
            ]
            for part in parts
        ],
    )
