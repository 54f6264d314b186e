"""Commands that submit a job: the same job, in the same run folder, as the app's buttons."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrc_core.budget import break_even, same_size
from lrc_core.cli.follow import result_of, start
from lrc_core.cli.output import emit, emit_json, emit_table, fixed_percent, note
from lrc_core.coverage import coverage_words, kept_words
from lrc_core.decompose.measures import effective_rank, energy_rank
from lrc_core.errors import RunError, SettingsError
from lrc_core.files import disk_errors
from lrc_core.formats.grids import METHODS
from lrc_core.jobs.engines.profile import LOCAL
from lrc_core.kinds import KINDS
from lrc_core.kinds.checks import needs_whole
from lrc_core.models.onload.choice import LAYER_LOCAL, MODES, ONLOAD
from lrc_core.plan import Plan, storage_of, update_of, variant_name
from lrc_core.quality.alternatives import why_not_quantise
from lrc_core.quality.quantised import compresses, sizes_of
from lrc_core.quality.rows import Scores
from lrc_core.quality.tables import evaluated_table, rows_csv, to_markdown
from lrc_core.registry import load
from lrc_core.results.plans import copy_plan
from lrc_core.runs.integrity import arrays_in, unaltered
from lrc_core.runs.spec import ModelRef, Spec
from lrc_core.runs.store import Run
from lrc_core.types import ModelCard
from lrc_core.words import data_size, duration, percent


def job(arguments: argparse.Namespace) -> None:
    """A command that submits a job, whatever its kind."""
    save = getattr(arguments, "save", None)
    if arguments.detach and save:
        raise RunError("--save needs the finished plan.", "Leave --detach away, or copy plan.json later.")

    def write(run: Run, _: dict[str, Any]) -> None:
        if save:
            save_plan(run, Path(save))

    _submit(arguments, KINDS[arguments.job].spec_from(arguments), write)


def bench(arguments: argparse.Namespace) -> None:
    """``lrc bench quality`` and ``lrc bench ablation``: they always go on where they stopped, and end in tables."""
    if arguments.detach and (arguments.csv or arguments.markdown):
        raise RunError("--csv and --markdown need the finished table.", "Leave --detach away, or repeat the command.")

    def write(_: Run, result: dict[str, Any]) -> None:
        for name, table in ((arguments.csv, rows_csv), (arguments.markdown, to_markdown)):
            if name:
                with disk_errors(path := Path(name)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(table(result), encoding="utf-8")

    arguments.resume = True
    _submit(arguments, KINDS[arguments.job].spec_from(arguments), write)


def spectra(arguments: argparse.Namespace) -> None:
    """``lrc spectra``. Before it streams a model it says what the headers say."""
    spec = KINDS[arguments.job].spec_from(arguments)
    if spec.stream and not arguments.json:
        print_outline(spec.model)
    _submit(arguments, spec)


def _submit(
    arguments: argparse.Namespace, spec: Spec, write: Callable[[Run, dict[str, Any]], None] | None = None
) -> None:
    run = start(spec, arguments, resume=arguments.resume, env=_onload(arguments, spec))
    if arguments.detach:
        print_started(run, as_json=arguments.json)
        return
    note(f"Run {run.id}")
    result = result_of(run)
    if write:
        write(run, result)
    print_result(run, result, as_json=arguments.json)


def _onload(arguments: argparse.Namespace, spec: Spec) -> dict[str, str] | None:
    """What the worker is told of how to hold the model; nothing where memory decides.

    Raises:
        SettingsError: block after block is asked for where that cannot be.
    """
    mode = getattr(arguments, "onload", MODES[0])
    if mode == "blocks" and (reason := needs_whole(spec)):
        raise SettingsError(f"{reason} needs the whole model in memory.", LAYER_LOCAL)
    if mode == MODES[0]:
        return None
    if arguments.engine.engine != LOCAL:
        raise SettingsError(
            f"--onload applies to workers on this machine only, not to those of {arguments.engine.engine}.",
            f"Leave it out (memory decides there), or set {ONLOAD} where the nodes' jobs start.",
        )
    return {ONLOAD: mode}


def save_plan(run: Run, target: Path) -> None:
    """Copy a run's plan; a file that belongs beside it goes along, named after the copy."""
    copy_plan(Plan.load(unaltered(run.path / "plan.json")), run.path, target)


def print_started(run: Run, *, as_json: bool) -> None:
    """What ``--detach`` says."""
    state = run.status().state
    if as_json:
        emit_json({"run_id": run.id, "state": state})
    else:
        emit(run.id)
        note(f"It is {state}; follow it with `lrc runs show {run.id}`.")


def print_result(run: Run, result: dict[str, Any], *, as_json: bool, show: Any = None) -> None:
    """The result of a finished run, as JSON or as text."""
    if as_json:
        for warning in result.get("warnings", []):
            note(f"Note: {warning}")
        # A comparison's shape is fixed; every other result says which run it came from.
        fixed = {"model": result["model"], "rows": result["rows"]} if run.spec.kind == "compare" else None
        emit_json(fixed or {**result, "run_id": run.id})
        return
    (show or load(KINDS[run.spec.kind].show))(run, result)
    for warning in result.get("warnings", []):
        note(f"Note: {warning}")
    if wall := result.get("wall_s"):
        note(f"Took {duration(wall)}.")


def print_outline(ref: ModelRef) -> None:
    """What the headers say of a model, on standard error: it comes before the result and is no part of it."""
    from lrc_core.models.outline import LIMIT, read_outline

    outline = read_outline(ref)
    card, largest = outline.card, outline.largest
    note(
        f"{card.name}: {card.params_total:,} parameters, {card.params_linear:,} of them in {len(card.layers)} matrices "
        f"of {card.n_blocks} blocks ({card.dtype})."
    )
    if said := coverage_words(card.coverage):
        note(said)
    for kind in card.kinds:
        layer = next(layer for layer in card.layers if layer.kind == kind)
        note(f"  {kind}: {layer.out_features} x {layer.in_features}, break-even rank {break_even(layer):.0f}")
    size = largest.tensor.bytes
    note(f"Largest matrix: {largest.layer.name}, {data_size(size)}; at most {data_size(LIMIT * size)} to work on it.")


def print_fetched(run: Run, _: dict[str, Any]) -> None:
    """That the model is there."""
    emit(f"{run.spec.model.source} is ready.")


def print_comparison(run: Run, result: dict[str, Any]) -> None:
    """A row for each method and size."""
    print_rows(result["rows"])
    _print_answer(run, result)


def print_tables(run: Run, result: dict[str, Any]) -> None:
    """The tables of a bench."""
    emit(to_markdown(result).rstrip())
    _print_answer(run, result)


def _print_answer(run: Run, result: dict[str, Any]) -> None:
    """Why not just quantise, for every target, where formats were measured."""
    rows = result["rows"]
    if not any(row["method"] in METHODS for row in rows):
        return
    for keep in dict.fromkeys(row["keep_target"] for row in rows if compresses(row)):
        at = [row for row in rows if not compresses(row) or same_size(row["keep_target"], keep)]
        if answer := why_not_quantise(at, Scores(run.path.parent)):
            emit(answer)


def print_spectra(run: Run, result: dict[str, Any]) -> None:
    """One line per kind of layer, with means over the blocks."""
    card = ModelCard.from_dict(result["card"])
    names = list(result["decompositions"])
    rows = []
    arrays = arrays_in(run.path / "spectra.npz")
    for kind in card.kinds:
        layers = [layer for layer in card.layers if layer.kind == kind]
        shape = f"{layers[0].out_features}x{layers[0].in_features}"
        cells = [kind, shape, f"{break_even(layers[0]):.0f}"]
        for name in names:
            sigmas = [arrays[f"{name}/{layer.name}"] for layer in layers]
            cells.append(f"{np.mean([effective_rank(sigma) for sigma in sigmas]):.0f}")
            cells.append(f"{np.mean([energy_rank(sigma, 0.95) for sigma in sigmas]):.0f}")
        rows.append(cells)
    header = ["layer", "shape", "break-even"]
    for name in names:
        header += [f"{name} effective", f"{name} 95 %"]
    emit_table(header, rows)
    emit(f"Ranks, means over {card.n_blocks} blocks. All spectra: {run.path / 'spectra.npz'}")
    if memory := result.get("stream"):
        emit(
            f"Working memory: {memory['working_bytes'] / 1e6:.1f} MB, "
            f"{memory['working_bytes'] / memory['largest_bytes']:.2f} times the largest matrix "
            f"({memory['largest_bytes'] / 1e6:.1f} MB)."
        )


def print_plan(run: Run, result: dict[str, Any]) -> None:
    """Ratios of a plan and where it lies."""
    plan = result["plan"]
    pruned = [str(len(plan["pruned"]))] if plan.get("pruned") else []
    emit_table(
        [
            "method",
            "decomposition",
            "kept",
            "target",
            "whole model",
            "low-rank",
            "dense",
            *(["pruned"] if pruned else []),
        ],
        [
            [
                variant_name(plan["method"], update_of(plan.get("origin")), storage_of(plan)),
                plan["decomposition"],
                fixed_percent(plan["keep_achieved"]) + _of_blocks(result, plan["keep_achieved"]),
                fixed_percent(plan["keep_target"]),
                fixed_percent(plan["keep_whole_model"]),
                str(len(plan["ranks"])),
                str(len(plan["dense"])),
                *pruned,
            ]
        ],
    )
    for said in (_bytes(result), _time(result.get("details", {})), _predicted(result.get("details", {}))):
        if said:
            emit(said)
    if recorded := result.get("recorded"):
        rates = ", ".join(str(entry["compression"]) for entry in recorded)
        emit(f"Plans recorded on the way, in percent of compression: {rates}  (--plan {run.id}@NN)")
    emit(f"Plan: {run.path / 'plan.json'}")


def _bytes(result: Mapping[str, Any]) -> str:
    """What a plan with number formats comes to, which shares of parameters say nothing of; "" of one in 16 bits."""
    plan = Plan.from_dict(result["plan"])
    if not plan.formats or not result.get("card"):
        return ""
    sizes = sizes_of(ModelCard.from_dict(result["card"]), plan)
    formats = Counter(plan.formats.values())
    layers = ", ".join(f"{formats[name]} in {name}" for name in sorted(formats))
    share = fixed_percent(sizes["bytes_share"])
    return (
        f"Bytes: {share} of the block linears in 16 bits, {data_size(sizes['model_bytes'])} in all. Layers: {layers}."
    )


def _time(details: Mapping[str, Any]) -> str:
    """What the layers take of one token, where time was the budget."""
    taken, dense = (details.get(f"{name}milliseconds") for name in ("", "dense_"))
    if not isinstance(taken, float) or not isinstance(dense, float):
        return ""
    return f"Time: {taken:.1f} ms of {dense:.1f} that the block linears take dense, a token ({percent(taken / dense)})."


def _predicted(details: Mapping[str, Any]) -> str:
    """What a plan is predicted to lose, and how much of that its rank multiple costs; "" where nothing is predicted."""
    loss, free = (details.get(f"predicted_loss_{name}") for name in ("increase", "at_any_rank"))
    if not isinstance(loss, float):
        return ""
    beside = f"; {free:.4f} if ranks were no multiples" if isinstance(free, float) else ""
    return f"Predicted loss: {loss:.4f} nats per token{beside}."


def _of_blocks(result: Mapping[str, Any], keep: float) -> str:
    """Behind a share that is kept: what it is of the whole blocks, where those cannot all be compressed."""
    card = result.get("card")
    return kept_words(keep, ModelCard.from_dict(card).coverage) if card else ""


def print_update(run: Run, result: dict[str, Any]) -> None:
    """The plan, and what the update did to the errors of its layers."""
    print_plan(run, result)
    found = result.get("details", {})
    if found.get("loss_before") is not None:
        emit(
            f"Tuned {found['layers']} layers in {found['steps']} steps; loss on text held "
            f"back {found['loss_before']:.3f} nats per token before, {found['loss_after']:.3f} after."
        )
    elif found.get("blocks"):
        emit(
            f"Refined {found['layers']} layers in {found['steps']} steps; mean error of their blocks' outputs "
            f"{fixed_percent(found['mean_error_before'])} before, {fixed_percent(found['mean_error_after'])} after."
        )
    elif found.get("layers"):
        emit(
            f"Updated {found['layers']} layers; mean error of their outputs "
            f"{fixed_percent(found['mean_error_before'])} before, {fixed_percent(found['mean_error_after'])} after."
        )


def print_lesson(run: Run, result: dict[str, Any]) -> None:
    """What squeezing single layers does, worst first, and where the rest lies."""
    for entry in result["texts"]:
        found = entry["divergence"]
        words = "" if found is None else f" (KL divergence {found:.3g} nats)"
        emit(f"{entry['layer'] or 'dense'}{words}: {entry['prompt']} → {' '.join(str(entry['text']).split())}")
    emit(f"For the Learn page: {run.path / 'lesson.json'}")


def print_row(_: Run, row: dict[str, Any]) -> None:
    """One evaluation, with its text sample."""
    print_rows([row])
    if sample := row.get("sample"):
        emit(f"{sample['prompt']} → {' '.join(str(sample['text']).split())}")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of evaluations."""
    emit_table(*evaluated_table(rows))
