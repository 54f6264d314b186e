"""Commands about this machine: ``lrc doctor``, ``lrc starter``, ``lrc bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from lrc_core import __version__
from lrc_core.cli.follow import ProgressLine
from lrc_core.cli.output import emit, emit_json, emit_table, note
from lrc_core.errors import RunError
from lrc_core.jobs import manager
from lrc_core.models.resources import cpu_memory_available, disk_available, human_bytes
from lrc_core.models.starter import fetch_all, pack_status
from lrc_core.paths import cache_home, runs_home
from lrc_core.runs.store import RunStore


def doctor(arguments: argparse.Namespace) -> int:
    """``lrc doctor``: what this machine offers; with ``--clean``, removes what can be computed again."""
    removed = clean_cache() if arguments.clean else None
    report = examine()
    if removed is not None:
        report["removed_bytes"] = removed
    if arguments.json:
        emit_json(report)
    else:
        _print(report)
    return 0


def starter(arguments: argparse.Namespace) -> int:
    """``lrc starter``: fetch what is missing of the starter pack."""
    line = ProgressLine()
    try:
        fetch_all(line.on_progress)
    finally:
        line.close()
    parts = [asdict(part) for part in pack_status()]
    if arguments.json:
        emit_json({"parts": parts})
    else:
        _print_parts(parts)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """``lrc bench NAME``: ``{"name", "ratio", "meaning", "baseline_s", "candidate_s", "detail"}``."""
    from lrc_core.cli.specs import model_ref

    measure = getattr(import_module("lrc_core.bench"), arguments.name.replace("-", "_"))
    found: Mapping[str, Any] = measure(model_ref(arguments))
    if arguments.json:
        emit_json(found)
    else:
        emit(f"{found['name']}: {found['ratio']:.2f}  ({found['meaning']})")
        emit(f"baseline {found['baseline_s']:.2f} s, candidate {found['candidate_s']:.2f} s")
    return 0


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
            "entries": cached(),
        },
        "runs": {
            "folder": str(runs_home()),
            "disk_available_bytes": disk_available(runs_home()),
            "count": len(RunStore().ids()),
            "bytes": _size(runs_home()),
        },
        "starter": [asdict(part) for part in pack_status()],
    }


def cached() -> list[dict[str, Any]]:
    """What lies in the cache and can be computed again: every finished decomposition, and the rest by folder."""
    entries: list[dict[str, Any]] = []
    found: list[dict[str, Any]]
    for folder in _computed():
        marks = sorted(folder.rglob("complete.json"))
        found = [
            {"kind": folder.name, "what": _described(mark), "path": str(mark.parent), "bytes": _size(mark.parent)}
            for mark in marks
        ]
        rest = _size(folder) - sum(int(entry["bytes"]) for entry in found)
        entries += found
        if rest > 0:
            entries.append({"kind": folder.name, "what": "other files", "path": str(folder), "bytes": rest})
    return entries


def clean_cache() -> int:
    """Remove everything from the cache but the starter pack; returns the bytes that became free.

    Raises:
        RunError: a job is running, which may be using it.
    """
    store = RunStore()
    manager.reconcile(store=store)
    busy = [summary.id for summary in store.list() if summary.state in ("running", "cancelling")]
    if busy:
        raise RunError(f"Run {busy[0]} may be using the cache.", "Clean when it has ended, or cancel it first.")
    removed = 0
    for folder in _computed():
        removed += _size(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _computed() -> list[Path]:
    try:
        return sorted(path for path in cache_home().iterdir() if path.is_dir() and path.name != "starter")
    except OSError:
        return []


def _described(mark: Path) -> str:
    """The words in a finished decomposition's description: model and method, as far as it names them."""
    with suppress(OSError, ValueError, AttributeError):
        data = json.loads(mark.read_text(encoding="utf-8"))
        words = [str(data[key]) for key in ("model", "source", "decomposition", "method") if data.get(key)]
        if words:
            return " ".join(words)
    return mark.parent.name


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def _print(report: dict[str, Any]) -> None:
    emit(f"lrc {report['version']}, Python {report['python']}, torch {report['torch']}")
    emit(f"device   {report['device']} ({report['device_name']}), {report['dtype']}")
    emit(f"threads  {report['threads']} on {report['cores']} cores")
    emit(f"memory   {human_bytes(report['memory_available_bytes'])} available")
    for name in ("cache", "runs"):
        part = report[name]
        emit(f"{name:<8} {part['folder']}, {human_bytes(part['disk_available_bytes'])} free on its disk")
    emit(f"         {report['runs']['count']} runs, {human_bytes(report['runs']['bytes'])}")
    emit()
    _print_parts(report["starter"])
    if "removed_bytes" in report:
        emit(f"\nRemoved {human_bytes(report['removed_bytes'])} of cached results.")
    if entries := report["cache"]["entries"]:
        emit()
        emit_table(
            ["cached", "what", "size"],
            [[entry["kind"], entry["what"], human_bytes(entry["bytes"])] for entry in entries],
        )
        note("`lrc doctor --clean` removes what is cached; it is computed again when needed.")


def _print_parts(parts: list[dict[str, Any]]) -> None:
    emit_table(
        ["starter pack", "state", "size", "licence"],
        [
            [
                part["label"],
                "present" if part["present"] else "missing (`lrc starter`)",
                human_bytes(part["bytes"] or part["download_bytes"]),
                part["licence"],
            ]
            for part in parts
        ],
    )
