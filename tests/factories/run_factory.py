"""Run folders as jobs leave them, written through the real store: what the pages are tested on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
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
from lrc_core.runs.spec import AllocateSpec, AnswerSpec, GenerateSpec, LessonSpec, ModelRef, SamplingSpec, SpectraSpec
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


def write_json(path: Path, content: Any) -> None:
    """A file as jobs write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def finish(run: Run, result: dict[str, Any], seconds: float = 42.0) -> Run:
    """Mark a run as done with its result."""
    now = time.time()
    run.write_result(result)
    status = run.status()
    run.write_status(replace(status, state="done", started_at=now - seconds, ended_at=now, updated_at=now))
    return run


def resealed(run: Run) -> Run:
    """The run as if it had finished with the files that it has now."""
    run.write_status(replace(run.status(), digests={}))
    return run


def spectra_run(
    store: RunStore, card: ModelCard, *, done: bool = True, decompositions: tuple[str, ...] = DECOMPOSITIONS
) -> Run:
    """Spectra of every layer under some decompositions, the three usual ones if nothing is said."""
    run = store.create(SpectraSpec(ModelRef(card.identity.source), decompositions))
    if not done:
        return run
    write_json(run.path / "card.json", card.to_dict())
    arrays = {f"{name}/{layer.name}": sigma_of(layer, name) for name in decompositions for layer in card.layers}
    np.savez_compressed(run.path / "spectra.npz", **arrays)
    return finish(run, {"card": card.to_dict(), "decompositions": list(decompositions), "wall_s": 42.0})


def lesson_run(store: RunStore, card: ModelCard, **changes: Any) -> Run:
    """A finished lesson; layers are the more sensitive the deeper they lie."""
    run = store.create(LessonSpec(model=ModelRef(card.identity.source), **changes))
    write_json(run.path / "card.json", card.to_dict())
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
    write_json(run.path / "lesson.json", content)
    pictures = {
        f"{layer.name}/{part}": np.full((len(ranks), 8, 8) if part != "weight" else (8, 8), 90, np.uint8)
        for layer in middle[:2]
        for part in ("weight", "kept", "missing")
    }
    np.savez_compressed(run.path / "pictures.npz", **pictures)
    return finish(run, {"card": card.to_dict(), "layers": [], "texts": content["texts"]})


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
    store: RunStore, card: ModelCard, *, method: str = "llrc", keep: float = 0.8, state: str = "done", **changes: Any
) -> Run:
    """An allocate run in some state; a learning one has recorded a plan at every whole percent that it passed."""
    run = store.create(allocate_spec(card, method, keep, **changes))
    if state == "queued":
        return run
    write_json(run.path / "card.json", card.to_dict())
    reached = STEPS if state == "done" else STEPS // 2
    if method == "llrc":
        train(run, card, keep, reached)
    if state != "done":
        return set_state(run, state, reached)
    plan = plan_at(card, keep, method, run.spec.decomposition)
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


def question_run(
    store: RunStore,
    texts: Mapping[tuple[str, float], str],
    *,
    prompt: str = "Why?",
    temperature: float = 0.0,
    blind: bool = False,
) -> Run:
    """A question that was answered: texts by the run that made each plan and its target; ("", 1) is the dense model."""
    plans = [{"origin": {"run_id": name}, "keep_target": keep} if name else None for name, keep in texts]
    spec = GenerateSpec(
        prompt=prompt, answers=tuple(map(AnswerSpec, plans)), sampling=SamplingSpec(temperature=temperature)
    )
    run = store.create(spec)
    if blind:
        (run.path / "blind").touch()
    transcript = TranscriptWriter(run)
    for number, text in enumerate(texts.values()):
        transcript.done(number, Answer(text))
    return finish(run, {"answers": []})
