"""The process that ``lrc bench memory`` measures: ``python -m lrc_core.jobs.memory_worker`` with a question as JSON.

The limit is RLIMIT_DATA, which the kernel holds at every single allocation: heap and private writable memory count,
in use or not. RLIMIT_AS would count mapped files and reserved addresses as well, which cost nothing; a cgroup takes
rights that a user seldom has; and a look at the resident set now and then misses peaks between two looks. Pages of
files that were read stay with the kernel, which drops them when memory is wanted.

Every phase is one line of JSON on standard output as soon as it is done.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOOK_S = 0.02


def main(question: dict[str, Any]) -> None:
    """Work under the limit, phase by phase."""
    if limit := question["limit"]:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    work = _stream if question["part"] == "stream" else _by_blocks
    for name, phase in work(Path(question["folder"]), question):
        with _peak() as peak:
            started, worked = time.monotonic(), time.process_time()
            more = phase()
            taken = {"seconds": time.monotonic() - started, "processor_seconds": time.process_time() - worked}
        rounded = {key: round(value, 2) for key, value in taken.items()}
        _say({"phase": name, **rounded, **peak, **(more if isinstance(more, dict) else {})})


def _by_blocks(folder: Path, question: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The whole way from files to a compressed folder."""
    from lrc_core.calibrate.factor_model import moments, output_gradients
    from lrc_core.pipeline import execute_in
    from lrc_core.pipeline.session import Session, factors_for
    from lrc_core.runs import spec as specs
    from lrc_core.runs.store import RunStore
    from lrc_core.types import never_stop

    ref = specs.ModelRef(str(folder / "model"))
    calibration = specs.CalibrationSpec((str(folder / question["text"]),), question["windows"], question["window"])
    evaluation = specs.EvaluationSpec((str(folder / question["report"]),), question["window"], question["scored"])
    session = Session(ref, _tell, never_stop)
    plan: dict[str, Any] = {}

    def done(spec: Any) -> dict[str, Any]:
        return execute_in(RunStore().create(spec), session)

    def allocated() -> None:
        settings = {"curve": "sigma"}
        wanted = specs.AllocateSpec(ref, "lagrangian", "kfac", 0.8, "", settings, calibration)
        plan.update(done(wanted)["plan"])

    def scored() -> dict[str, Any]:
        found = done(specs.EvaluateSpec(ref, plan, "", calibration, evaluation))
        return {"perplexity": next(iter(found["perplexity"].values()))["value"]}

    def exported() -> dict[str, Any]:
        return {"bytes": done(specs.ExportSpec(ref, plan, "", calibration))["folder_bytes"]}

    yield "open", lambda: {"params": session.loaded.card.params_total, "dtype": session.loaded.card.dtype}
    yield "plain spectra", lambda: done(specs.SpectraSpec(ref, ("svd",), calibration))["decompositions"]
    yield "second moments", lambda: moments(session.calibrated(calibration), _tell)
    yield "whitened factors", lambda: factors_for(session, "whitened", calibration)
    yield "output gradients", lambda: output_gradients(session.calibrated(calibration), _tell)
    yield "K-FAC factors", lambda: factors_for(session, "kfac", calibration)
    yield "Lagrangian plan", allocated
    yield "perplexity", scored
    yield "export", exported


def _stream(folder: Path, _: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Spectra of a model that is never loaded."""
    from lrc_core.models.outline import read_outline
    from lrc_core.pipeline.streaming import streamed_spectra_run
    from lrc_core.runs.spec import ModelRef, SpectraSpec
    from lrc_core.runs.store import RunStore
    from lrc_core.types import Progress, never_stop

    spec = SpectraSpec(ModelRef(str(folder / "model")), ("svd",), stream=True)
    outline = read_outline(spec.model)
    kinds = [matrix.layer.kind for shard in outline.shard_bytes for matrix in outline.matrices if matrix.shard == shard]
    ticks: list[float] = []

    def on_progress(tick: Progress) -> None:
        _tell(tick)
        if tick.step or len(ticks) == 0:
            ticks.append(time.monotonic())

    def streamed() -> dict[str, Any]:
        found = streamed_spectra_run(RunStore().create(spec), on_progress, never_stop)
        taken: dict[str, list[float]] = {}
        for kind, before, after in zip(kinds, ticks, ticks[1:], strict=False):
            taken.setdefault(kind, []).append(after - before)
        return {"stream": found["stream"], "matrices": {kind: sum(all_) / len(all_) for kind, all_ in taken.items()}}

    yield "streamed spectra", streamed


@contextmanager
def _peak() -> Iterator[dict[str, int]]:
    """The largest figures of the kernel within the context, looked at fifty times a second."""
    found = {"data": 0, "anonymous": 0, "resident": 0}
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            now = _figures()
            for name, value in now.items():
                found[name] = max(found[name], value)
            over.wait(_LOOK_S)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _figures() -> dict[str, int]:
    """What counts against the limit, what of it is in use, and what is in use of files as well."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    sizes = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }
    return {"data": sizes["VmData"], "anonymous": sizes["RssAnon"], "resident": sizes["VmRSS"]}


def _tell(tick: Any) -> None:
    _say({"progress": tick.phase, "step": tick.step, "total": tick.total})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
