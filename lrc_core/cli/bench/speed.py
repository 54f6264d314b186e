"""``lrc bench speed``: a model and its compressed forms against each other, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lrc_core.budget import check_target
from lrc_core.cli.follow import ProgressLine
from lrc_core.cli.output import answer, emit, emit_table, note
from lrc_core.errors import SettingsError
from lrc_core.kinds.words.flags import add_model, model_ref
from lrc_core.kinds.words.lists import add_list
from lrc_core.plan import Plan
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.words import data_size, percent, significant

BATCHES, PROMPTS, KEEPS, SECONDS = (1, 8, 32), (128, 512, 2048), (0.6, 0.4), 10.0
MODES = ("eager", "compile", "graphs")
_PHASES = ("prefill", "decode")
_STAND_IN = "two blocks of a Llama of 7 billion parameters, built in memory from random numbers, 4096 wide"


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_model(parser)
    plans = "plans to time as well, of this model (default model: the plan's)"
    add_list(parser, ("--plan",), "plan", plans, metavar="FILE|RUN", extend=True)
    for word, name, of, default, what in (
        ("--keep", "keep", float, KEEPS, "shares that uniform pairs and pivots keep"),
        ("--batch", "batch", int, BATCHES, "sequences at once"),
        ("--prompt", "prompt", int, PROMPTS, "tokens of the prompt"),
    ):
        said = f"{what} (default: {' '.join(map(str, default))})"
        add_list(parser, (word,), name, said, of=of, metavar=name.upper())
    add_list(parser, ("--mode",), "mode", "eager, compile, graphs (default: eager; all on a GPU)", among=MODES)
    add_list(parser, ("--phase",), "phase", "prefill, decode (default: both)", among=_PHASES)
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 (default: as the device computes)")
    parser.add_argument("--threads", type=int, help="processor threads (default: as PyTorch chooses)")
    words = "for the turns of one cell; cells that would take far longer are left out (default: %(default)g)"
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=words)


def speed(arguments: argparse.Namespace) -> None:
    """``lrc bench speed``."""
    answer(arguments, _measured(arguments), _print)


def _measured(arguments: argparse.Namespace) -> Mapping[str, Any]:
    import torch

    from lrc_core.bench.contenders import contenders, two_blocks
    from lrc_core.bench.inference import SpeedGrid, inference
    from lrc_core.models.blocks.linears import block_linears
    from lrc_core.models.device import named_dtype, pick_device
    from lrc_core.models.load import load_model

    grid = _grid(arguments, SpeedGrid)
    plans = _plans(arguments.plan or ())
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = pick_device()
    dtype = named_dtype(arguments.dtype, device)
    ref = _named(arguments, plans)
    note(f"Measuring {_STAND_IN if ref is None else ref.source}.")
    with ProgressLine() as line:
        model = two_blocks(device, dtype) if ref is None else load_model(ref, on_progress=line.on_progress).model
        model = model.to(dtype)
        for keep in arguments.keep or KEEPS:
            check_target(block_linears(model), keep)
        with ExitStack() as stack, torch.no_grad():
            forms = contenders(model, arguments.keep or KEEPS, plans, stack)
            return {"name": "speed", "model": ref.source if ref else None, **inference(forms, grid, line.on_progress)}


def _grid(arguments: argparse.Namespace, make: Any) -> Any:
    import torch

    batches, prompts = arguments.batch or BATCHES, arguments.prompt or PROMPTS
    if min(*batches, *prompts, arguments.threads or 1) < 1 or arguments.seconds <= 0:
        raise SettingsError("Batches, prompts, threads and seconds are above 0.", "Take --batch 1 --prompt 512.")
    modes = arguments.mode or (MODES if torch.cuda.is_available() else MODES[:1])
    phases = tuple(arguments.phase or _PHASES)
    return make(tuple(modes), tuple(batches), tuple(prompts), arguments.seconds, phases)


def _plans(words: Any) -> list[tuple[str, Plan, Path]]:
    store = RunStore()
    sources = [(word, find_plan(word, store)) for word in words]
    return [(word, Plan.from_dict(source.plan), store.root / source.folder) for word, source in sources]


def _named(arguments: argparse.Namespace, plans: list[tuple[str, Plan, Path]]) -> ModelRef | None:
    """The model that was named, that of the first plan, or none."""
    if arguments.model or arguments.named_model:
        return model_ref(arguments)
    return ModelRef(plans[0][1].model.source, plans[0][1].model.revision) if plans else None


def _print(found: Mapping[str, Any]) -> None:
    rates = found["rates"]
    emit(f"{found['device']}, {found['dtype']}, {found['threads']} threads, load {found['load']}")
    emit(
        f"at best: {data_size(rates['bytes_per_s'])}/s read, {rates['flops_per_s'] / 1e9:,.0f} GFLOP/s, "
        f"{1e6 * rates['launch_s']:.1f} us for an operation"
    )
    timed = [row for row in found["rows"] if row["seconds"]]
    if timed:
        head = ("mode", "phase", "batch", "prompt", "form", "kept", "tokens/s", "x dense", "quartiles", "x processor")
        emit_table((*head, "reads", "limit", "peak"), [_cells(row) for row in timed])
    left_out: dict[str, list[str]] = {}
    for row in found["rows"]:
        if row["reason"]:
            where = row["name"] if row["reason"].startswith("not timed") else f"{row['batch']} x {row['prompt']}"
            left_out.setdefault(row["reason"], []).append(f"{where} ({row['mode']} {row['phase']})")
    for reason, where in left_out.items():
        emit(f"{', '.join(dict.fromkeys(where))}: {reason}")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    processor = row["processor_ratio"]
    return (
        row["mode"],
        row["phase"],
        str(row["batch"]),
        str(row["prompt"]),
        row["name"],
        percent(row["keep"]),
        significant(row["tokens_per_s"]),
        f"{row['ratio']:.2f}",
        f"{row['low']:.2f}-{row['high']:.2f}",
        "" if processor is None else f"{processor:.2f}",
        data_size(row["bytes"]),
        row["limit"],
        data_size(row["memory"]),
    )
