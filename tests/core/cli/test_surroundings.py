"""Terminals that cannot write every sign, and cache folders that cannot be written."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from lrc_core.cli import main
from lrc_core.cli.output import emit, emit_table, note, write_what_the_terminal_can
from lrc_core.errors import ResourceError
from lrc_core.kinds import check
from lrc_core.paths import require_cache
from lrc_core.runs.spec import (
    AllocateSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    FetchSpec,
    GenerateSpec,
    Spec,
    SpectraSpec,
)
from tests.factories.job_helpers import a_plan

SIGNS = "LLRC – 20 % → 17.3 ± 0.4, 2 × “mine” … résumé 日本 \udcff"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "utf-8"])
def test_no_terminal_loses_a_table(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    write_what_the_terminal_can()
    emit_table(["method", SIGNS], [[SIGNS, "1.5"], ["–", "2"]])
    emit(SIGNS)
    note(SIGNS)
    shown = {}
    for name, stream in streams.items():
        stream.flush()
        shown[name] = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "LLRC" in shown["stderr"] and "17.3" in shown["stdout"] and len(shown["stdout"].splitlines()) == 4
    if encoding == "ascii":
        assert 'LLRC - 20 % -> 17.3 +- 0.4, 2 x "mine" ... resume ?? ?' in shown["stdout"]
    if encoding == "utf-8":
        assert SIGNS[:-1] in shown["stdout"], "what can be written is written"


def test_every_command_takes_care_of_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["methods"]) == 0
    assert stream.errors == "lrc"


NEEDS_THE_CACHE: tuple[Spec, ...] = (
    AllocateSpec(),
    SpectraSpec(),
    CompareSpec(),
    EvaluateSpec(plan=a_plan().to_dict()),
)
DOES_NOT: tuple[Spec, ...] = (
    FetchSpec(),
    EvaluateSpec(evaluation=EvaluationSpec(("gensim",))),
    GenerateSpec(prompt="x"),
    SpectraSpec(decompositions=("svd",), stream=True),
)


@pytest.mark.parametrize("how", ["a file", "below a file", "a name too long"])
def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    folder = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "x",
        "a name too long": tmp_path / ("x" * 300),
    }
    monkeypatch.setenv("LRC_CACHE", str(folder[how]))
    for spec in NEEDS_THE_CACHE:
        with pytest.raises(ResourceError, match="cache folder") as caught:
            check(spec, model_too=False)
        assert "LRC_CACHE" in caught.value.remedy
    for spec in DOES_NOT:
        check(spec, model_too=False)


def test_a_cache_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)
    monkeypatch.setenv("LRC_CACHE", str(folder))
    if os.geteuid() == 0:
        assert require_cache() == folder, "root may write anywhere"
    else:
        with pytest.raises(ResourceError, match="LRC_CACHE"):
            require_cache()
