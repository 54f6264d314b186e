"""Imports go downward only, and what pages and the manager of jobs import is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "types"),
    ("settings", "paths", "budget", "words"),
    ("registry", "plan"),
    ("decompose", "runs"),
    ("models",),
    ("texts", "lowrank"),
    ("calibrate", "allocate", "evaluate", "export", "quality"),
    ("tune",),
    ("names",),
    ("kinds",),
    ("pipeline", "bench"),
    ("jobs",),
    ("report",),
    ("cli", "samples"),
)
"""From the ground up; a module imports from lower floors and from its own package only."""
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
SHARED_BY_ALLOCATORS = {
    "gumbel",
    "knapsack",
    "loss_curves",
    "predicted",
    "probe_grid",
    "probes",
    "probing",
    "protocol",
    "records",
    "sensitivity",
    "teacher",
    "training",
    "waterfill",
}


def modules() -> list[Path]:
    return sorted((ROOT / "lrc_core").rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    """``lrc_core/models/load.py`` belongs to ``models``."""
    return path.relative_to(ROOT / "lrc_core").parts[0].removesuffix(".py")


def test_every_part_has_a_floor() -> None:
    assert {part_of(path) for path in modules()} - {"__init__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "lrc_core")))
def test_imports_go_downward(path: Path) -> None:
    part = part_of(path)
    for name in imports_of(path):
        words = name.split(".")
        if words[0] != "lrc_core" or len(words) == 1 or words[1] in (part, "__version__"):
            continue
        assert FLOOR_OF[words[1]] < FLOOR_OF[part], f"{path} imports {name}, which is not below it"


def test_allocators_do_not_import_each_other() -> None:
    folder = ROOT / "lrc_core" / "allocate"
    for path in sorted(folder.glob("*.py")):
        method = path.stem.split("_")[0]  # llrc may import llrc_losses
        for name in imports_of(path) if path.stem != "__init__" else ():
            if not name.startswith("lrc_core.allocate."):
                continue
            other = name.split(".")[2]
            own = other.split("_")[0] == method and method not in SHARED_BY_ALLOCATORS
            assert other in SHARED_BY_ALLOCATORS or own, f"{path.name} imports {other}"


def test_what_allocators_share_knows_no_allocator() -> None:
    for stem in SHARED_BY_ALLOCATORS:
        for name in imports_of(ROOT / "lrc_core" / "allocate" / f"{stem}.py"):
            assert not name.startswith("lrc_core.allocate.") or name.split(".")[2] in SHARED_BY_ALLOCATORS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "lrc_core")))
def test_no_page_code_in_the_core(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert not roots & {"streamlit", "pages", "app", "tqdm", "tests"}
    if path.name != "zero_shot.py":
        assert "lm_eval" not in roots


def test_pages_import_neither_torch_nor_transformers() -> None:
    for path in [ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"torch", "transformers", "datasets", "lm_eval"}, path


LIGHT = (
    "lrc_core.allocate",
    "lrc_core.decompose",
    "lrc_core.decompose.measures",
    "lrc_core.allocate.loss_curves",
    "lrc_core.allocate.waterfill",
    "lrc_core.plan",
    "lrc_core.runs.store",
    "lrc_core.runs.recorder",
    "lrc_core.jobs.manager",
    "lrc_core.jobs.worker",
    "lrc_core.kinds",
    "lrc_core.kinds.checks",
    "lrc_core.export.film",
    "lrc_core.export.film_gif",
    "lrc_core.export.film_html",
    "lrc_core.quality.forecast",
    "lrc_core.jobs.generator",
    "lrc_core.jobs.generation_worker",
    "lrc_core.runs.transcript",
    "lrc_core.quality.footprint",
    "lrc_core.quality.plain_words",
    "lrc_core.quality.votes",
    "lrc_core.quality.rows",
    "lrc_core.quality.tables",
    "lrc_core.words",
    "lrc_core.names",
    "lrc_core.report.build",
    "lrc_core.report.html",
    "lrc_core.report.pdf",
    "lrc_core.models.preflight",
    "lrc_core.models.starter",
    "lrc_core.cli",
)


def test_light_modules_load_no_heavy_library() -> None:
    """In one process, one after the other, so that the first offender is named."""
    program = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'streamlit', 'pandas'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} loads {sorted(heavy)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
