"""Shared by tests of the core: a tiny model and texts for jobs and benches, the command line, a pretended hub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lrc_core.bench.cost import Speeds
from lrc_core.cli import main
from lrc_core.evaluate.cost import measure_cost
from lrc_core.evaluate.sample import greedy_sample
from lrc_core.runs.spec import CalibrationSpec, EvaluationSpec, ModelRef
from lrc_core.runs.store import Run, RunStore
from tests.factories.hub_stand_in import Hub
from tests.factories.job_helpers import EXECUTE_VARIABLE, kill_workers
from tests.factories.quality_helpers import set_methods, zero_shot
from tests.factories.tiny_models import save_tiny, tiny_text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A tiny model saved as a folder."""
    return ModelRef(str(save_tiny(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A file with a calibration text, and one with another text to report on."""
    folder = tmp_path_factory.mktemp("texts")
    paths = folder / "calibrate.txt", folder / "report.txt"
    for seed, path in enumerate(paths):
        path.write_text(tiny_text(6000, seed), encoding="utf-8")
    return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def calibration(texts: tuple[str, str]) -> CalibrationSpec:
    return CalibrationSpec((texts[0],), windows=40, window=64)


@pytest.fixture(scope="module")
def evaluation(texts: tuple[str, str]) -> EvaluationSpec:
    return EvaluationSpec((texts[1],), window=48, max_windows=6)


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in this process write four tokens and time two steps: most of what a measured plan costs a test."""
    monkeypatch.setattr("lrc_core.pipeline.evaluation.greedy_sample", partial(greedy_sample, max_new_tokens=4))
    small = partial(measure_cost, prompt_tokens=8, new_tokens=3, repeats=3)
    monkeypatch.setattr("lrc_core.pipeline.evaluation.measure_cost", small)


@pytest.fixture
def bench_parts(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What every bench of the tiny model says, with the methods and zero-shot outcomes of ``quality_helpers``."""
    set_methods(monkeypatch)
    monkeypatch.setattr("lrc_core.pipeline.evaluation._zero_shot", zero_shot)
    return {
        "model": model,
        "calibration": replace(calibration, windows=24, window=48),
        "evaluation": replace(evaluation, tasks=("one", "two"), items=20),
    }


@pytest.fixture
def known_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of this machine as if it had been measured, which takes seconds, on a busy machine every time."""
    monkeypatch.setattr("lrc_core.bench.machine._measured", lambda: Speeds(1e12, 1e12, 5e11, 4e9, 2e9))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cells of a bench that were computed (not joined), in order."""
    from lrc_core.pipeline import parts

    done: list[str] = []
    for name in ("allocation_run", "evaluation_run"):
        stage = getattr(parts, name)

        def counted(child: Run, session: Any, stage: Any = stage) -> dict[str, Any]:
            done.append(child.id)
            return stage(child, session)

        monkeypatch.setattr(parts, name, counted)
    return done


@pytest.fixture
def lrc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a command in this process, its jobs with a pretended pipeline; returns exit code, stdout, stderr."""
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:canned")
    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    kill_workers(RunStore())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A running hub with one model, and a library that believes in it; its cache is a temporary folder."""
    from huggingface_hub import constants

    Hub.folder, Hub.asked = save_tiny(tmp_path / "remote"), []
    (Hub.folder / "README.md").write_text("a card")
    (Hub.folder / "onnx").mkdir()
    (Hub.folder / "onnx" / "model.safetensors").write_bytes(b"another format")
    (Hub.folder / "code.py").write_text("raise SystemExit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    yield Hub
    server.shutdown()
    server.server_close()
