"""What the worker does in these tests instead of the pipeline, and how tests wait without sleeping blindly."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from lrc_core.errors import CancelledError, ModelError
from lrc_core.plan import Plan, make_plan
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import LinearShape, ModelCard, ModelIdentity, OnProgress, Progress, ShouldStop

EXECUTE_VARIABLE = "LRC_TEST_EXECUTE"
"""Names what workers do instead; see ``tests/stand_in``."""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def processes_of(store: RunStore, module: str = "") -> list[psutil.Process]:
    """The dispatcher and the workers of a store, this process excepted; those of one module where it is named."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            mine = any(word.startswith(f"lrc_core.jobs.{module}") for word in words)
            if mine and str(store.root.resolve()) in " ".join(words) and process.pid != os.getpid():
                found.append(process)
    return found


def kill_workers(store: RunStore) -> None:
    """End whatever works on runs, the dispatcher first: it would start the next one."""
    for module in ("dispatcher", ""):
        for process in processes_of(store, module):
            with suppress(psutil.Error):
                process.kill()


def finish(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Done at once."""
    on_progress(Progress("working", 1, 1))
    return {"run_id": run.id, "pid_ran": True}


def work(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Count steps, keep a checkpoint, and end when a file ``go`` appears beside the run folders."""
    checkpoint = run.path / "checkpoint" / "step.json"
    checkpoint.parent.mkdir(exist_ok=True)
    first = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    step = first
    while not (run.path.parent / "go").exists():
        if should_stop():
            raise CancelledError("Cancelled.")
        step += 1
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps(step))
        temporary.replace(checkpoint)
        on_progress(Progress("counting", step, 1000, {"loss": 1 / step}))
        time.sleep(0.01)
    return {"first": first, "steps": step}


def deaf(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Never looks at ``should_stop``."""
    on_progress(Progress("not listening"))
    while True:
        time.sleep(0.05)


def leave_a_thread(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Finish, but for a thread that nobody will ever wake."""
    threading.Thread(target=threading.Event().wait).start()
    return finish(run, on_progress=on_progress, should_stop=should_stop)


def fail(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """An expected failure."""
    raise ModelError("model.layers.0.q_proj holds NaN.", "Download it again.")


def tell_token(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """How long the token is that only this process was given."""
    return {"length": len(os.environ["HF_TOKEN"])}


def in_turn(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Note when it began and ended; overlapping or disordered runs show up in the file."""
    with (run.path.parent / "order.txt").open("a") as file:
        file.write(f"begin {run.id}\n")
        file.flush()
        time.sleep(0.05)
        file.write(f"end {run.id}\n")
    return {}


CARD = ModelCard(
    identity=ModelIdentity("starter", "", "f" * 64, "LlamaForCausalLM"),
    name="tiny",
    params_total=200,
    params_linear=96,
    n_blocks=2,
    hidden_size=6,
    vocab_size=10,
    max_positions=16,
    dtype="float32",
    dtype_bytes=4,
    device="cpu",
    layers=tuple(LinearShape(f"model.layers.{i}.mlp.up_proj", i, "mlp.up_proj", 8, 6) for i in range(2)),
)


def a_plan(rank: int = 2, **origin: Any) -> Plan:
    """A small plan of ``CARD``."""
    ranks = {layer.name: rank for layer in CARD.layers}
    return make_plan(CARD, ranks, decomposition="whitened", method="llrc", keep_target=0.8, origin=origin)


def a_row(method: str, keep: float) -> dict[str, Any]:
    """A row of an evaluation."""
    accuracy = {"acc": 0.5, "acc_stderr": 0.05, "acc_norm": 0.6, "acc_norm_stderr": 0.05, "n": 100}
    return {
        "method": method,
        "decomposition": "whitened",
        "keep_target": keep,
        "keep_achieved": keep,
        "perplexity": {"gensim": {"value": 20.0, "stderr": 0.5}},
        "zero_shot": {"arc_easy": accuracy},
        "run_id": "evaluate-000000000000",
        "sample": {"prompt": "The sea", "text": "is\nblue."},
        "wall_s": 1.5,
    }


def canned(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """What the pipeline would leave behind, in small."""
    on_progress(Progress("pretending", 1, 1, {"loss": 2.5}))
    spec = run.spec
    if spec.kind == "spectra":
        sigmas = {f"{d}/{layer.name}": np.arange(6, 0, -1.0) for d in spec.decompositions for layer in CARD.layers}
        np.savez(run.path / "spectra.npz", **sigmas)
        return {"card": CARD.to_dict(), "decompositions": list(spec.decompositions), "wall_s": 1.0}
    if spec.kind == "allocate":
        (run.path / "plans").mkdir(exist_ok=True)
        a_plan(3, run_id=run.id).save(run.path / "plans" / "10.json")
        a_plan(2, run_id=run.id).save(run.path / "plan.json")
        recorded = [{"compression": 10, "keep_achieved": 0.9, "file": "plans/10.json"}]
        plan = a_plan(2, run_id=run.id).to_dict()
        return {"card": CARD.to_dict(), "plan": plan, "recorded": recorded, "wall_s": 61.0}
    if spec.kind == "update":
        origin = {**(spec.plan["origin"] or {}), "run_id": run.id, "update": dict(spec.settings)}
        plan = replace(Plan.from_dict(dict(spec.plan)), weights_file="weights.safetensors", origin=origin)
        plan.save(run.path / "plan.json")
        (run.path / "weights.safetensors").write_bytes(b"canned")
        details = {"layers": 2, "mean_error_before": 0.04, "mean_error_after": 0.02}
        return {"card": CARD.to_dict(), "plan": plan.to_dict(), "recorded": [], "details": details, "wall_s": 3.0}
    if spec.kind == "evaluate":
        return a_row("dense" if spec.plan is None else str(spec.plan["method"]), 1.0)
    if spec.kind == "compare":
        rows = [a_row(method, keep) for method in spec.methods for keep in spec.keeps]
        return {"model": spec.model.source, "rows": [a_row("dense", 1.0), *rows]}
    if spec.kind in ("quality", "ablation"):
        rows = [{**a_row(method, keep), "seed": 0} for keep in spec.keeps for method in spec.methods]
        failed = {
            "method": "llrc",
            "decomposition": "whitened",
            "keep_target": 0.1,
            "error": "Too small.",
            "remedy": "",
        }
        return {"model": spec.model.source, "rows": [a_row("dense", 1.0), *rows, failed], "baselines": ["uniform"]}
    return {}
