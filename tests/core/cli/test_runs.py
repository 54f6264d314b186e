"""Runs from the command line: listed, cancelled, failed, taken up again, and terminals that go away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lrc_core.runs.store import RunStore
from tests.factories.job_helpers import EXECUTE_VARIABLE, wait_for
from tests.tree import ROOT


def test_runs_commands(lrc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lrc("runs", "list")[:2] == (0, "")
    assert json.loads(lrc("runs", "list", "--json")[1]) == {"runs": []}
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    code, out, err = lrc("allocate", "--detach", "--json")
    assert code == 0, err
    run_id = json.loads(out)["run_id"]
    assert json.loads(lrc("allocate", "--detach", "--json")[1])["run_id"] == run_id
    wait_for(lambda: RunStore().open(run_id).status().step > 0, "a first step")
    assert "counting" in lrc("runs", "list")[1]
    (listed,) = json.loads(lrc("runs", "list", "--json")[1])["runs"]
    assert (listed["id"], listed["state"], listed["what"]) == (run_id, "running", "llrc+pivoted, keep 0.8")
    code, out, err = lrc("runs", "delete", run_id)
    assert (code, out) == (1, "")
    assert "Cancel it first" in err
    assert json.loads(lrc("runs", "cancel", run_id, "--json")[1]) == {"run_id": run_id, "state": "cancelled"}
    assert "already ended" in lrc("runs", "cancel", run_id)[1]
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:canned")
    code, out, _ = lrc("runs", "resume", run_id, "--json")
    assert json.loads(out)["plan"]["method"] == "llrc"
    shown = json.loads(lrc("runs", "show", run_id, "--json")[1])
    assert shown["state"] == "done"
    assert shown["command"].startswith("lrc allocate starter --method llrc --keep 0.8")
    assert shown["spec"]["kind"] == "allocate"
    code, out, _ = lrc("runs", "show", run_id)
    assert "command  lrc allocate" in out
    assert lrc("runs", "resume", run_id)[0] == 1
    assert json.loads(lrc("runs", "delete", run_id, "--json")[1]) == {"deleted": [run_id]}
    assert RunStore().list() == []


def test_damaged_runs_are_listed_shown_as_damaged_and_deleted(lrc: Any) -> None:
    run_id = json.loads(lrc("spectra", "--json")[1])["run_id"]
    (RunStore().root / run_id / "spec.json").write_text("{")
    assert "damaged" in lrc("runs", "list")[1]
    code, out, err = lrc("runs", "show", run_id)
    assert (code, out) == (1, "")
    assert "spec.json" in err
    assert lrc("runs", "delete", run_id)[0] == 0


def test_a_failed_job_is_told_and_taken_up_again(lrc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:fail")
    code, out, err = lrc("spectra", "--json")
    assert (code, out) == (1, "")
    assert "NaN" in err.splitlines()[-1] and "Download" in err.splitlines()[-1]
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:canned")
    code, out, err = lrc("spectra", "--json")
    assert (code, out) == (1, "")
    assert "failed before" in err
    assert "lrc runs resume spectra-" in err
    code, out, _ = lrc("spectra", "--json", "--resume")
    assert code == 0
    run_id = json.loads(out)["run_id"]
    assert RunStore().open(run_id).status().attempt == 2


def test_a_stopped_bench_goes_on_when_asked_again(lrc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:fail")
    assert lrc("bench", "quality", "--methods", "uniform")[0] == 1
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:canned")
    code, out, err = lrc("bench", "quality", "--methods", "uniform", "--json")
    assert code == 0, err
    assert RunStore().open(json.loads(out)["run_id"]).status().attempt == 2


@pytest.fixture
def terminal() -> Iterator[Any]:
    """Starts a command in a process of its own."""
    started: list[subprocess.Popen[str]] = []
    code = (
        "import sys, lrc_core.kinds.checks as p\n"
        "p.check_model = lambda *_: None\n"
        "from lrc_core.cli import main\n"
        "sys.exit(main())\n"
    )

    def as_in_a_terminal() -> None:
        """What a shell starts in the background ignores Ctrl-C, and children inherit that; so would these tests."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def start(*words: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", code, *words], subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=as_in_a_terminal)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_ctrl_c_cancels_the_job_and_says_how_to_go_on(lrc: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    process = terminal("spectra", "--json")
    store = RunStore()
    wait_for(lambda: any(s.status and s.status.step > 0 for s in store.list()), "a first step")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    (summary,) = store.list()
    assert summary.state == "cancelled"
    assert f"lrc runs resume {summary.id}" in err


def test_a_killed_terminal_leaves_the_job_working(lrc: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTE_VARIABLE, "tests.factories.job_helpers:work")
    process = terminal("spectra", "--json")
    store = RunStore()
    wait_for(lambda: any(s.status and s.status.step > 0 for s in store.list()), "a first step")
    process.kill()
    process.communicate(timeout=120)
    (summary,) = store.list()
    step = summary.status.step  # type: ignore[union-attr]
    wait_for(lambda: store.open(summary.id).status().step > step, "further steps")
    (store.root / "go").touch()
    code, out, err = lrc("spectra", "--json")
    assert code == 0, err
    assert json.loads(out)["run_id"] == summary.id
