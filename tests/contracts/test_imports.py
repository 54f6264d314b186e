"""Imports go downward only, and what pages and the manager of jobs import is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.tree import ROOT

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "front", "hf"),
    ("records",),
    ("types",),
    ("settings", "visitors", "budget", "escape"),
    ("paths",),
    ("words", "coverage", "serving", "formats"),
    ("files",),
    ("digests",),
    ("registry", "plan", "damage"),
    ("decompose", "runs", "updates"),
    ("models",),
    ("texts", "lowrank"),
    ("calibrate", "allocate", "evaluate", "charts", "quality"),
    ("folders",),
    ("tune",),
    ("names",),
    ("results", "figures"),
    ("kinds",),
    ("pipeline", "bench"),
    ("jobs",),
    ("report",),
    ("cli", "samples", "api"),
)
"""From the ground up; a module imports from lower floors and from its own package only."""
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
SHARED_BY_ALLOCATORS = {"curves", "masks", "probing", "protocol"}
"""The rooms of ``lrc_core/allocate`` that every method may use; each other folder there is one method's own."""


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


def module_name(path: Path) -> str:
    """``lrc_core/models/load.py`` is ``lrc_core.models.load``, a package's ``__init__`` the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def known(names: Iterable[str], files: Collection[str]) -> Iterator[str]:
    """The modules among ``files`` that the names lie in: ``a.b.function`` lies in ``a.b``."""
    for name in names:
        parts = name.split(".")
        candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        yield from (found for found in [next((each for each in candidates if each in files), None)] if found)


def rooms_of_allocators() -> list[str]:
    """Folders and files of ``lrc_core/allocate``."""
    paths = (ROOT / "lrc_core" / "allocate").iterdir()
    return sorted(path.stem for path in paths if not path.name.startswith("__"))


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


@pytest.mark.parametrize("room", rooms_of_allocators())
def test_a_method_imports_the_shared_rooms_and_itself(room: str) -> None:
    allowed = SHARED_BY_ALLOCATORS if room in SHARED_BY_ALLOCATORS else SHARED_BY_ALLOCATORS | {room}
    folder = ROOT / "lrc_core" / "allocate"
    for path in sorted((folder / room).rglob("*.py")) or [folder / f"{room}.py"]:
        for name in imports_of(path):
            if name.startswith("lrc_core.allocate."):
                other = name.split(".")[2]
                assert other in allowed, (
                    f"{path.relative_to(ROOT)} imports {other}: what several methods use belongs in one of "
                    f"{', '.join(sorted(SHARED_BY_ALLOCATORS))}"
                )


def test_no_circles() -> None:
    """Imports inside functions and under TYPE_CHECKING count."""
    files = {module_name(path): path for path in [*modules(), ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]}
    below = {module: set(known(imports_of(path), files)) - {module} for module, path in files.items()}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "lrc_core")))
def test_no_page_code_in_the_core(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert not roots & {"streamlit", "pages", "app", "tests"}
    if path.name != "progress.py":
        assert "tqdm" not in roots
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
    "lrc_core.allocate.curves.loss_curves",
    "lrc_core.allocate.curves.waterfill",
    "lrc_core.plan",
    "lrc_core.files",
    "lrc_core.damage",
    "lrc_core.runs.store",
    "lrc_core.runs.recorder",
    "lrc_core.jobs.manager",
    "lrc_core.jobs.worker",
    "lrc_core.kinds",
    "lrc_core.kinds.checks",
    "lrc_core.charts.film",
    "lrc_core.charts.film_gif",
    "lrc_core.charts.film_html",
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
    "lrc_core.serving",
    "lrc_core.names",
    "lrc_core.results.archive",
    "lrc_core.results.plans",
    "lrc_core.results.answers",
    "lrc_core.results.benches",
    "lrc_core.results.comparisons",
    "lrc_core.results.plan_quality",
    "lrc_core.results.scores",
    "lrc_core.results.spectra",
    "lrc_core.report.build",
    "lrc_core.report.html.page",
    "lrc_core.report.pdf.document",
    "lrc_core.folders.card",
    "lrc_core.folders.ways",
    "lrc_core.results.measured",
    "lrc_core.models.preflight",
    "lrc_core.models.pack.starter",
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


def test_an_integration_needs_nothing_of_this_program() -> None:
    """An exported folder is enough for it."""
    paths = sorted((ROOT / "integrations").rglob("*.py"))
    assert paths
    for path in paths:
        assert not {name.split(".")[0] for name in imports_of(path)} & {"lrc_core", "pages", "app", "tests"}, path


def test_no_folder_holds_more_than_twenty_files() -> None:
    folders = {
        path.parent for room in ("lrc_core", "pages", "tests", "integrations") for path in (ROOT / room).rglob("*.py")
    }
    crowded = {str(one.relative_to(ROOT)): count for one in folders if (count := len(list(one.glob("*.py")))) > 20}
    assert not crowded, "a folder is an idea: give what belongs together a folder of its own"
