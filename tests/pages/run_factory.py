"""Run folders as jobs leave them, written through the real store: what the pages are tested on."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lrc_core.budget import dense_ranks, fit_budget, uniform_ranks
from lrc_core.plan import Plan, make_plan, pruned_plan
from lrc_core.quality.footprint import params_under
from lrc_core.runs.process import host_name
from lrc_core.runs.records import Status
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    AnswerSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    GenerateSpec,
    LessonSpec,
    ModelRef,
    QualitySpec,
    SpectraSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import Answer, TranscriptWriter
from lrc_core.types import LinearShape, ModelCard, ModelIdentity

KINDS = (
    ("self_attn.q_proj", 1.0, 1.0),
    ("self_attn.k_proj", 1 / 3, 1.0),
    ("self_attn.v_proj", 1 / 3, 1.0),
    ("self_attn.o_proj", 1.0, 1.0),
    ("mlp.gate_proj", 8 / 3, 1.0),
    ("mlp.up_proj", 8 / 3, 1.0),
    ("mlp.down_proj", 1.0, 8 / 3),
)
DECOMPOSITIONS = ("svd", "asvd", "whitened")
STEPS = 60


def make_card(source: str = "starter", blocks: int = 4, width: int = 48) -> ModelCard:
    """A model of Llama's shape."""
    layers = tuple(
        LinearShape(f"model.layers.{block}.{kind}", block, kind, round(width * out), round(width * inner))
        for block in range(blocks)
        for kind, out, inner in KINDS
    )
    linear = sum(layer.params for layer in layers)
    return ModelCard(
        identity=ModelIdentity(source, "", f"{source}-{blocks}-{width}".encode().hex()[:40], "LlamaForCausalLM"),
        name="SmolLM2-135M" if source == "starter" else source.rsplit("/", 1)[-1],
        params_total=linear + 49_152 * width,
        params_linear=linear,
        n_blocks=blocks,
        hidden_size=width,
        vocab_size=49_152,
        max_positions=8192,
        dtype="bfloat16",
        dtype_bytes=2,
        device="cpu",
        layers=layers,
    )


def sigma_of(layer: LinearShape, decomposition: str) -> np.ndarray:
    """A smooth falling spectrum that differs by layer and decomposition."""
    steep = {"svd": 1.3, "asvd": 3.0, "whitened": 5.0, "kfac": 6.0}[decomposition] * (
        1 + 0.5 * np.sin(layer.block + len(layer.kind))
    )
    position = np.linspace(0, 1, layer.full_rank)
    return (10 * np.exp(-steep * position) / (1 + 20 * position**0.7)).astype(np.float32)


def finish(run: Run, result: dict[str, Any], seconds: float = 42.0) -> Run:
    """Mark a run as done with its result."""
    now = time.time()
    run.write_result(result)
    status = run.status()
    run.write_status(replace(status, state="done", started_at=now - seconds, ended_at=now, updated_at=now))
    return run


def spectra_run(
    store: RunStore, card: ModelCard, *, done: bool = True, decompositions: tuple[str, ...] = DECOMPOSITIONS
) -> Run:
    """Spectra of every layer under some decompositions, the three usual ones if nothing is said."""
    run = store.create(SpectraSpec(ModelRef(card.identity.source), decompositions))
    if not done:
        return run
    _write(run.path / "card.json", card.to_dict())
    arrays = {f"{name}/{layer.name}": sigma_of(layer, name) for name in decompositions for layer in card.layers}
    np.savez_compressed(run.path / "spectra.npz", **arrays)
    return finish(run, {"card": card.to_dict(), "decompositions": list(decompositions), "wall_s": 42.0})


def lesson_run(store: RunStore, card: ModelCard, **changes: Any) -> Run:
    """A finished lesson; layers are the more sensitive the deeper they lie."""
    run = store.create(LessonSpec(model=ModelRef(card.identity.source), **changes))
    _write(run.path / "card.json", card.to_dict())
    middle = [layer for layer in card.layers if layer.block == card.n_blocks // 2]
    ranks = [1, 3, 8, 16]
    sensitivity: dict[str, Any] = {"": {"loss": 2.5}}
    for number, layer in enumerate(card.layers):
        divergence = 0.001 * 1.3**number
        sensitivity[layer.name] = {"rank": 2, "loss": 2.5 + divergence, "divergence": divergence}
    layers = [
        {
            "name": layer.name,
            "ranks": ranks,
            "brightest": 0.3,
            "sigma": {name: sigma_of(layer, name).tolist() for name in ("svd", "whitened")},
            "weight_error": {"svd": [0.9, 0.6, 0.3, 0.0], "whitened": [0.95, 0.7, 0.4, 0.0]},
            "output_error": {"svd": [0.8, 0.5, 0.25, 0.0], "whitened": [0.6, 0.25, 0.1, 0.0]},
            "input_energy": {"directions": [1, 4, 16], "share": [0.4, 0.7, 1.0]},
            "tokens": 4096,
        }
        for layer in middle[:2]
    ]
    squeezed = [card.layers[-1], card.layers[0]]
    texts = [{"layer": None, "rank": None, "divergence": None, "prompt": "The sea", "text": " is blue and wide."}]
    texts += [
        {
            "layer": layer.name,
            "rank": 2,
            "divergence": sensitivity[layer.name]["divergence"],
            "prompt": "The sea",
            "text": f" is layer {layer.block} layer layer layer.",
        }
        for layer in squeezed
    ]
    content = {"keep": 0.1, "layers": layers, "sensitivity": sensitivity, "texts": texts}
    parts = run.spec.parts
    for part, key in (("layers", "layers"), ("sensitivity", "sensitivity"), ("text", "texts")):
        content[key] = content[key] if part in parts else type(content[key])()
    _write(run.path / "lesson.json", content)
    pictures = {
        f"{layer.name}/{part}": np.full((len(ranks), 8, 8) if part != "weight" else (8, 8), 90, np.uint8)
        for layer in middle[:2]
        for part in ("weight", "kept", "missing")
    }
    np.savez_compressed(run.path / "pictures.npz", **pictures)
    return finish(run, {"card": card.to_dict(), "layers": [], "texts": content["texts"]})


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def plan_at(card: ModelCard, keep: float, method: str = "llrc", decomposition: str = "whitened") -> Plan:
    """A plan that a method could have made: uniform, or one that favours the middle blocks."""
    ranks = uniform_ranks(card.layers, keep)
    if method != "uniform":
        tilt = 0.25 if method == "llrc" else 0.5
        wanted = {
            layer.name: min(
                layer.full_rank,
                max(1, round(ranks[layer.name] * (1 + tilt * np.sin(layer.block / 3 + len(layer.kind))))),
            )
            for layer in card.layers
        }
        ranks = fit_budget(card.layers, wanted, keep)
    return make_plan(card, ranks, decomposition=decomposition, method=method, keep_target=keep)


def pruned_plan_at(card: ModelCard, keep: float, method: str = "llm_pruner") -> Plan:
    """A plan that removes channels of every MLP but the first and last, and no heads."""
    plan = make_plan(card, dense_ranks(card.layers), decomposition="whitened", method=method, keep_target=keep)
    shapes = {
        layer.name: (round(keep * layer.out_features), layer.in_features)
        if "down" not in layer.kind
        else (layer.out_features, round(keep * layer.in_features))
        for layer in card.layers
        if layer.kind.startswith("mlp") and 0 < layer.block < card.n_blocks - 1
    }
    return pruned_plan(plan, card, shapes, "structure.safetensors")


def allocate_spec(card: ModelCard, method: str = "llrc", keep: float = 0.8, **changes: Any) -> AllocateSpec:
    return AllocateSpec(model=ModelRef(card.identity.source), method=method, keep=keep, **changes)


def allocate_run(
    store: RunStore, card: ModelCard, *, method: str = "llrc", keep: float = 0.8, state: str = "done"
) -> Run:
    """An allocate run in some state; a learning one has recorded a plan at every whole percent that it passed."""
    run = store.create(allocate_spec(card, method, keep))
    if state == "queued":
        return run
    _write(run.path / "card.json", card.to_dict())
    reached = STEPS if state == "done" else STEPS // 2
    if method == "llrc":
        train(run, card, keep, reached)
    if state != "done":
        return set_state(run, state, reached)
    plan = plan_at(card, keep, method)
    plan.save(run.path / "plan.json")
    recorded = [
        {"compression": int(path.stem), "keep_achieved": 1 - int(path.stem) / 100, "file": f"plans/{path.name}"}
        for path in sorted((run.path / "plans").glob("*.json"))
    ]
    return finish(run, {"card": card.to_dict(), "plan": plan.to_dict(), "recorded": recorded, "wall_s": 600.0}, 600.0)


def train(run: Run, card: ModelCard, keep: float, steps: int, first: int = 1) -> None:
    """Events, snapshots of ranks and recorded plans of some training steps."""
    (run.path / "plans").mkdir(exist_ok=True)
    for step in range(first, steps + 1):
        target = 1 - (1 - keep) * step / STEPS
        achieved = min(1.0, target + 0.01 * (1 - step / STEPS))
        values = {
            "keep": achieved,
            "target": target,
            "loss": 2.0 * np.exp(-step / 30) + 0.5,
            "compression": 0.3 * np.exp(-step / 20),
            "distill": 0.2 + 0.1 * step / STEPS,
            "tv": 0.05 + 0.01 * np.sin(step),
            "alpha": step / STEPS,
            "tokens_per_s": 410.0 + step,
            "memory_mb": 1830.0,
            "eta_s": 5.0 * (STEPS - step),
        }
        run.append_event({"t": time.time(), "phase": "learning masks", "step": step, "total": STEPS, "values": values})
        if step % 5 == 0 or step == first:
            snapshot = plan_at(card, min(0.99, achieved)).full_ranks(card.layers)
            with (run.path / "ranks.jsonl").open("a", encoding="utf-8") as file:
                ranks = [snapshot[layer.name] for layer in card.layers]
                file.write(json.dumps({"step": step, "keep": achieved, "ranks": ranks}) + "\n")
        percent = int(100 * (1 - target))
        if percent and not (run.path / "plans" / f"{percent:02d}.json").exists():
            plan_at(card, 1 - percent / 100).save(run.path / "plans" / f"{percent:02d}.json")


def set_state(run: Run, state: str, step: int = 0, error: str = "", remedy: str = "") -> Run:
    """Put a run into a state; a running one belongs to this process, so that nobody declares it dead."""
    now = time.time()
    me = psutil.Process()
    status = Status(
        state=state,
        phase="learning masks",
        step=step,
        total=STEPS,
        values={"eta_s": 120.0},
        created_at=now - 100,
        queued_at=now - 100,
        started_at=now - 90,
        updated_at=now,
        ended_at=now if state in ("failed", "cancelled", "interrupted") else 0.0,
        phase_started_at=now - 60,
        error=error,
        remedy=remedy,
        pid=os.getpid(),
        pid_started=me.create_time(),
        host=host_name(),
    )
    run.write_status(status)
    run.beat()
    return run


def row(method: str, keep: float, *, run_id: str = "", allocate_run_id: str = "", tasks: bool = True) -> dict[str, Any]:
    """One measured row with plausible figures."""
    penalty = {"dense": 0.0, "uniform": 60.0, "strs": 38.0, "llrc": 24.0, "llm_pruner": 50.0}[method] * (
        1 - keep
    ) ** 1.3
    scores = {
        task: {
            "acc": base - penalty / 160,
            "acc_stderr": 0.031,
            "acc_norm": base - 0.02 - penalty / 170,
            "acc_norm_stderr": 0.032,
            "n": 200,
        }
        for task, base in (("arc_easy", 0.61), ("piqa", 0.68), ("winogrande", 0.53))
    }
    return {
        "method": method,
        "decomposition": "" if method == "dense" else "whitened",
        "keep_target": keep,
        "keep_achieved": keep - (0 if method == "dense" else 0.0004),
        "keep_whole_model": 1 - (1 - keep) * 0.79,
        "perplexity": {
            "gensim": {"value": 18.2 + penalty, "stderr": 0.42 + penalty / 40},
            "c4": {"value": 24.9 + 1.3 * penalty, "stderr": 0.61 + penalty / 40},
        },
        "zero_shot": scores if tasks else {},
        "run_id": run_id,
        "allocate_run_id": allocate_run_id,
        "sample": {"prompt": "The capital of France is", "text": f" Paris, as {method} says, a city on the river."},
        "cost": {
            "params": int(134.5e6 * (1 - (1 - keep) * 0.79)),
            "bytes": int(269e6 * (1 - (1 - keep) * 0.79)),
            "prefill_tokens_per_s": 900 + 300 * (1 - keep),
            "decode_tokens_per_s": 31 - 8 * (1 - keep),
        },
        "wall_s": 61.0,
    }


EVALUATION = EvaluationSpec(tasks=("arc_easy", "piqa", "winogrande"), items=200)


def compare_run(
    store: RunStore,
    card: ModelCard,
    *,
    methods: tuple[str, ...] = ("uniform", "strs", "llrc"),
    keeps: tuple[float, ...] = (0.9, 0.8),
    skip: tuple[tuple[str, float], ...] = (),
    done: bool = True,
    update: str = "none",
) -> Run:
    """A comparison, with its rows so far; every cell's plan is in an evaluate run of its own."""
    ref = ModelRef(card.identity.source)
    run = store.create(CompareSpec(model=ref, methods=methods, keeps=keeps, evaluation=EVALUATION, update=update))
    rows = [row("dense", 1.0, run_id="dense-row")]
    for keep in keeps:
        for method in methods:
            if (method, keep) in skip:
                continue
            made = pruned_plan_at(card, keep) if method == "llm_pruner" else plan_at(card, keep, method)
            plan = made.to_dict()
            content = row(method, keep)
            if update != "none":
                plan |= {"weights_file": "weights.safetensors", "origin": {"update": {"kind": update}}}
                content |= {"update": update}
            folder = "/nowhere" if made.files else ""
            cell = store.create(EvaluateSpec(model=ref, plan=plan, plan_folder=folder, evaluation=EVALUATION))
            content["run_id"] = cell.id
            finish(cell, content)
            rows.append(content)
    _write(run.path / "rows.json", rows)
    return finish(run, {"model": ref.source, "rows": rows}) if done else set_state(run, "running", 2)


def tested(p: float) -> dict[str, Any]:
    """A paired test of everything against something."""
    test = {"difference": -0.1, "stderr": 0.03, "p": p, "pairs": 40}
    return {
        "perplexity": {"gensim": test, "c4": test},
        "zero_shot": dict.fromkeys(("arc_easy", "piqa", "winogrande"), test),
        "mean": test,
    }


def bench_row(method: str, keep: float, *, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A row of a bench: as measured, with what follows from it."""
    content = row(method, keep, run_id=f"evaluate-{method}-{keep}-{seed}", tasks=keep in (0.8, 1.0))
    base = row("dense", 1.0)
    content["relative"] = {
        text: score["value"] / base["perplexity"][text]["value"] for text, score in content["perplexity"].items()
    }
    mean = {"value": 0.55 - (1 - keep) / 4, "stderr": 0.018, "tasks": 3}
    content["zero_shot_mean"] = mean if content["zero_shot"] else None
    content |= {"params_linear": 84_000, "params_total": 135_000, "layers": 28, "paired": {}}
    if method != "dense":
        content |= {"seed": seed, "dense_layers": 9}
        content["paired"] = {"uniform": tested(0.01), "strs": tested(0.2), "dense": tested(0.0)}
        content["allocation"] = {"wall_s": 431.0, "peak_memory_mb": 1800, "shared_from": None}
    return {**content, **more}


def quality_run(store: RunStore, card: ModelCard, *, seeds: tuple[int, ...] = (0,), done: bool = True) -> Run:
    """A bench of three methods, one of which failed at 0.6, with a reference model."""
    ref = ModelRef(card.identity.source)
    spec = QualitySpec(model=ref, keeps=(0.8, 0.6), seeds=seeds, evaluation=EVALUATION, references=("owner/small",))
    run = store.create(spec)
    reference = {**bench_row("dense", 1.0), "method": "reference", "name": "Small-100M", "keep_achieved": 0.7}
    rows = [bench_row("dense", 1.0), {**reference, "keep_whole_model": 0.74, "note": "converted by bytes"}]
    for keep in spec.keeps:
        for method in spec.methods:
            for seed in seeds:
                if (method, keep) == ("strs", 0.6):
                    cell = {"method": method, "decomposition": "whitened", "keep_target": keep, "seed": seed}
                    rows.append({**cell, "error": "Keeping 0.6 is impossible.", "remedy": "Ask for more."})
                else:
                    rows.append(bench_row(method, keep, seed=seed))
    _write(run.path / "rows.json", rows)
    result = {"model": ref.source, "rows": rows, "baselines": ["uniform", "strs"], "warnings": []}
    return finish(run, result) if done else set_state(run, "running", 2)


def ablation_run(store: RunStore, card: ModelCard) -> Run:
    """An ablation of LLRC whose variants have evaluate runs of their own."""
    ref = ModelRef(card.identity.source)
    run = store.create(AblationSpec(model=ref, evaluation=EVALUATION))
    rows: list[dict[str, Any]] = [bench_row("dense", 1.0)]
    names = {"losses": ("all terms", "only tv", "without distill"), "texts": ("text as preset", "text code")}
    for part, variants in names.items():
        for variant in variants:
            plan = {**plan_at(card, 0.8).to_dict(), "origin": {"variant": variant}}
            cell = store.create(EvaluateSpec(model=ref, plan=plan, evaluation=EVALUATION))
            content = bench_row("llrc", 0.8, part=part, variant=variant, run_id=cell.id)
            content["paired"] = {} if variant in ("all terms", "text as preset") else {"base": tested(0.001)}
            finish(cell, content)
            rows.append(content)
    _write(run.path / "rows.json", rows)
    return finish(run, {"model": ref.source, "rows": rows, "baselines": ["base"], "warnings": []})


def generate_run(
    store: RunStore,
    card: ModelCard,
    *,
    prompt: str = "Why is the sky blue?",
    state: str = "done",
    blind: bool = False,
    written: int = 3,
) -> Run:
    """A question to LLRC, the dense model and uniform ranks, in that order; ``written`` of them have answered.

    Where the run is not done, the last one of them is still writing.
    """
    plans = [plan_at(card, 0.8, "llrc"), None, plan_at(card, 0.8, "uniform")]
    answers = tuple(AnswerSpec(None if plan is None else json.loads(json.dumps(plan.to_dict()))) for plan in plans)
    run = store.create(GenerateSpec(ModelRef(card.identity.source), prompt, answers))
    if blind:
        (run.path / "blind").touch()
    if state == "queued":
        return run
    transcript = TranscriptWriter(run, clock=iter(range(1000)).__next__)
    records = []
    for number in range(written):
        params = params_under(card, plans[number])
        text = f"Air scatters blue light, says number {number}.\n\nThat is all."
        measured = {"tokens_per_s": 11.04 + number, "bytes": 2 * params, "params": params, "prefill_s": 0.5}
        answer = Answer(text, 24, 2.0, prompt_tokens=30, ended="end", **measured)
        if state != "done" and number == written - 1:
            transcript.piece(number, text[:20], 5, 0.4)
        else:
            transcript.done(number, answer)
            records.append(answer.to_dict())
    return finish(run, {"answers": records, "wall_s": 9.0}) if state == "done" else set_state(run, state, 3)
