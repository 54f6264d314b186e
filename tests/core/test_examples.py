"""The README's first lines and the notebooks of ``examples/``, run on a tiny model and tiny texts, with no network."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lrc_core.runs.spec import CalibrationSpec, EvaluationSpec, ModelRef
from tests.tree import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them work, so that what one has computed the next one finds."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def small_world(model: ModelRef, texts: tuple[str, str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever model is named is the tiny one, in this process; texts are short files, runs of their own."""
    from lrc_core.api import parts
    from lrc_core.api.work import Work

    class Here(Work):
        def __init__(self, *, here: bool, progress: bool) -> None:
            super().__init__(here=True, progress=progress)

    def calibration_spec(given: Any, seed: int = 0) -> CalibrationSpec:
        return parts.calibration_spec({"texts": [texts[0]], "windows": 16, "window": 32}, seed)

    def evaluation_spec(given: Any, base: EvaluationSpec) -> EvaluationSpec:
        small = {"texts": [texts[1]], "window": 32, "max_windows": 3}
        return parts.evaluation_spec({**given, **small}, base)

    for name in ("cache", "runs"):
        monkeypatch.setenv(f"LRC_{name.upper()}", str(place / name))
    monkeypatch.chdir(place)
    monkeypatch.setattr("lrc_core.api.load.model_source", lambda _: model.source)
    monkeypatch.setattr("lrc_core.api.load.Work", Here)
    for name in ("spectra", "allocate", "compare"):
        monkeypatch.setattr(f"lrc_core.api.{name}.calibration_spec", calibration_spec)
    for name in ("evaluate", "compare"):
        monkeypatch.setattr(f"lrc_core.api.{name}.evaluation_spec", evaluation_spec)


def executed(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; the value of its last line, None where that is no expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("small_world")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_speaks_of(path: Path) -> None:
    names: dict[str, Any] = {}
    for cell in cells(path):
        if cell["cell_type"] == "code":
            shown = executed("".join(cell["source"]), names)
            if (html := getattr(shown, "_repr_html_", None)) is not None:
                assert "<" in html()
            assert shown is None or repr(shown)


def test_notebooks_are_committed_without_outputs() -> None:
    assert len(NOTEBOOKS) >= 4
    for path in NOTEBOOKS:
        code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
        assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.usefixtures("small_world")
def test_the_first_block_of_the_readme_runs(place: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    kind, body = blocks[0]
    assert kind == "python" and len(body.splitlines()) <= 12
    executed(body, {})
    assert (place / "smaller" / "config.json").is_file()
