"""Comparisons and benches as their jobs leave them: tables of measured rows."""

from __future__ import annotations

from typing import Any

from lrc_core.runs.spec import AblationSpec, CompareSpec, EvaluateSpec, EvaluationSpec, ModelRef, QualitySpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard
from tests.factories.run_factory import finish, plan_at, pruned_plan_at, set_state, write_json

EVALUATION = EvaluationSpec(tasks=("arc_easy", "piqa", "winogrande"), items=200)


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


def compare_run(  # noqa: PLR0913 - every one a way in which comparisons differ
    store: RunStore,
    card: ModelCard,
    *,
    methods: tuple[str, ...] = ("uniform", "strs", "llrc"),
    keeps: tuple[float, ...] = (0.9, 0.8),
    skip: tuple[tuple[str, float], ...] = (),
    done: bool = True,
    update: str = "none",
    storage: str = "pair",
    decomposition: str = "whitened",
    evaluation: EvaluationSpec = EVALUATION,
) -> Run:
    """A comparison, with its rows so far; every cell's plan is in an evaluate run of its own."""
    ref = ModelRef(card.identity.source)
    run = store.create(CompareSpec(model=ref, methods=methods, keeps=keeps, evaluation=evaluation, update=update))
    rows = [row("dense", 1.0, run_id="dense-row")]
    for keep in keeps:
        for method in methods:
            if (method, keep) in skip:
                continue
            made = pruned_plan_at(card, keep) if method == "llm_pruner" else plan_at(card, keep, method)
            plan = made.to_dict()
            content = row(method, keep) | {"decomposition": decomposition}
            if update != "none":
                plan |= {"weights_file": "weights.safetensors", "origin": {"update": {"kind": update}}}
                content |= {"update": update}
            if storage != "pair":
                content |= {"storage": storage}
            folder = "/nowhere" if made.files else ""
            cell = store.create(EvaluateSpec(model=ref, plan=plan, plan_folder=folder, evaluation=evaluation))
            content["run_id"] = cell.id
            finish(cell, content)
            rows.append(content)
    write_json(run.path / "rows.json", rows)
    return finish(run, {"model": ref.source, "rows": rows}) if done else set_state(run, "running", 2)


def evaluate_run(
    store: RunStore, card: ModelCard, method: str, keep: float, *, evaluation: EvaluationSpec = EVALUATION, **more: Any
) -> Run:
    """One measured plan that no comparison asked for; ``more`` is in its row."""
    plan = plan_at(card, keep, method).to_dict() | {"origin": {"why": str(more)}}
    run = store.create(EvaluateSpec(model=ModelRef(card.identity.source), plan=plan, evaluation=evaluation))
    return finish(run, row(method, keep, run_id=run.id) | more)


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
    write_json(run.path / "rows.json", rows)
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
    write_json(run.path / "rows.json", rows)
    return finish(run, {"model": ref.source, "rows": rows, "baselines": ["base"], "warnings": []})
