"""Starting the server: ports and words. That the app answers is what the browser tests show."""

from __future__ import annotations

import socket

import pytest

from lrc_core.paths import READ_ONLY
from pages.ui import serve


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with socket.socket() as other:
            other.bind((serve.HOST, 0))
            spare = other.getsockname()[1]
        assert serve.free_port([port, spare]) == spare
        with pytest.raises(OSError, match="no free port"):
            serve.free_port([port])


def test_bad_ports_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["many"]) == 2
    assert "'many'" in capsys.readouterr().err


def test_a_taken_port_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        assert serve.main([str(taken.getsockname()[1])]) == 1
    assert "make app PORT=" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--token"], ["--profile", "slurm.toml"], ["--token", "--class"]])
def test_what_guards_or_places_jobs_is_refused_where_nobody_starts_any(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READ_ONLY, "1")
    assert serve.main(flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_go() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        serve.allow_many_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1] and 256 < soft <= serve.MOST_FILES
        serve.allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
