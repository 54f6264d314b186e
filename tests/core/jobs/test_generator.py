"""The generation process for real: shared, released for other jobs, back afterwards, cancelled, told to go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrc_core.cli import main
from lrc_core.jobs import generator, manager
from lrc_core.runs.spec import CalibrationSpec, GenerateSpec, ModelRef, SamplingSpec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import read_answers
from tests.factories.job_helpers import EXECUTE_VARIABLE, kill_workers, wait_for


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    monkeypatch.setattr("lrc_core.kinds.checks.check_model", lambda *_: None)
    store = RunStore()
    yield store
    generator.release(store, at_once=True)
    kill_workers(store)


def ask(store: RunStore, model: ModelRef, prompt: str, **sampling: Any) -> Run:
    sampling = {"max_new_tokens": 8, **sampling}
    return manager.submit(GenerateSpec(model, prompt, sampling=SamplingSpec(**sampling)), store=store)


def ended(run: Run, state: str = "done") -> None:
    wait_for(lambda: run.status().final, f"the end of {run.id}: {run.log_tail()}", 240)
    assert run.status().state == state, run.log_tail()


def state_of(store: RunStore) -> str:
    found = generator.find(store)
    return found.state if found is not None else "none"


def test_one_process_serves_all_and_gives_way(
    store: RunStore, model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ask(store, model, "one"), ask(store, model, "two")
    ended(first)
    ended(second)
    assert first.status().pid == second.status().pid, "the second question found the model in memory"
    assert read_answers(first)[0].tokens == 8
    wait_for(lambda: state_of(store) == "idle", "idle")
    found = generator.find(store)
    assert found is not None and found.model == model.source and 0 < (generator.seconds_left(found) or 0) <= 300

    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    heavy = manager.submit(SpectraSpec(model, calibration=CalibrationSpec(seed=5)), store=store)
    wait_for(lambda: heavy.status().step > 0, f"the device was given to {heavy.id}: {heavy.log_tail()}", 120)
    wait_for(lambda: generator.find(store) is None, "the process has gone")

    third = ask(store, model, "three")
    wait_for(lambda: state_of(store) == "waiting", "it waits for the device")
    assert third.status().state == "queued" and manager.queue_position(third.id, store=store) == 1
    behind = manager.submit(SpectraSpec(model, calibration=CalibrationSpec(seed=6)), store=store)
    (store.root / "go").touch()
    ended(heavy)
    ended(third)
    ended(behind)


def test_failure_cancel_and_release(store: RunStore, model: ModelRef, tmp_path: Path) -> None:
    failed = ask(store, ModelRef(str(tmp_path)), "hello")
    ended(failed, "failed")
    assert "config.json" in failed.status().error
    run = ask(store, model, "long", max_new_tokens=4096, temperature=1.0, seed=4)
    wait_for(lambda: read_answers(run).get(0), f"the first words: {run.log_tail()}", 240)
    manager.cancel(run.id, store=store, wait=True)
    assert run.status().state in ("cancelled", "done")
    pid = run.status().pid
    assert pid == failed.status().pid, "a failure costs one answer, not the process"
    again = ask(store, model, "short")
    ended(again)
    assert again.status().pid == pid, "a cancel costs one answer, not the model"
    assert generator.release(store)
    wait_for(lambda: generator.find(store) is None, "released")
    assert not generator.release(store)


def test_released_and_asked_again_at_once(store: RunStore, model: ModelRef) -> None:
    ended(ask(store, model, "first"))
    generator.release(store)
    ended(ask(store, model, "second"))
    # Told to go before it could know how to: it holds nothing, and the question is answered.
    generator.release(store, at_once=True)
    wait_for(lambda: generator.find(store) is None, "the process has gone")
    starting = ask(store, model, "third")
    assert state_of(store) == "starting" and not generator.release(store)
    ended(starting)


def test_what_waits_is_answered_although_the_process_was_told_to_go(
    store: RunStore, model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(generator.IDLE_VARIABLE, "0.2")
    long = ask(store, model, "long", max_new_tokens=4000)
    wait_for(lambda: read_answers(long).get(0) is not None, f"a first token: {long.log_tail()}", 120)
    waiting = ask(store, model, "short")
    generator.release(store)
    ended(waiting)
    ended(long, "cancelled")
    wait_for(lambda: generator.find(store) is None, "gone after a moment of idleness")


def test_the_command_streams_and_prints(
    store: RunStore, model: ModelRef, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(generator.IDLE_VARIABLE, "60")
    assert main(["generate", model.source, "--prompt", "the rank", "--max-new-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    assert main(["generate", model.source, "--prompt", "the rank", "--max-new-tokens", "6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answers"][0]["text"] in shown and "── dense model" in shown
    assert main(["generate", model.source]) == 1
    assert "--prompt" in capsys.readouterr().err
    assert main(["generate", "--release"]) == 0
