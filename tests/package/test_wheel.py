"""The wheel, installed into an environment that knows nothing of the clone, and started in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from packaging.requirements import Requirement
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from pages.ui.serve import free_port
from tests.factories.tiny_models import save_tiny, tiny_text
from tests.tree import ROOT

DISTRIBUTION = "low_rank_compression_explorer"


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel.

    Attributes:
        environment: its folder.
        elsewhere: a folder to work in, with traps for what is looked for in the wrong place.
    """

    environment: Path
    elsewhere: Path

    @property
    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        own = {name: str(self.environment / name.lower()) for name in ("LRC_RUNS", "LRC_CACHE")}
        return {**kept, **own, "HF_HUB_OFFLINE": "1"}

    def command(self, *words: str) -> list[str]:
        return [str(self.environment / "bin" / "lrc"), *words]

    def lrc(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), cwd=self.elsewhere, env=self.variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, *words: str) -> Iterator[int]:
        """A server; its port."""
        port = free_port(range(9100, 9300))
        command = self.command(words[0], str(port), *words[1:])
        log = self.environment / f"{words[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=self.elsewhere, env=self.variables, stdout=output, stderr=output)
        try:
            end = time.monotonic() + 120
            while not healthy(port):
                assert process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=30)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
            return True
    except HTTPError:  # it runs and cannot answer
        raise
    except OSError:
        return False


def page_of(port: int) -> list[ForwardMsg]:
    """What the server sends to a browser that opens its first page, until the page's script has ended."""
    ask = BackMsg()
    ask.rerun_script.query_string = ""
    found = []
    address = f"ws://127.0.0.1:{port}/_stcore/stream"
    with connect(address, origin=f"http://127.0.0.1:{port}", subprotocols=["streamlit"]) as socket:  # type: ignore
        socket.send(ask.SerializeToString())
        while not found or found[-1].WhichOneof("type") != "script_finished":
            found.append(ForwardMsg.FromString(socket.recv(timeout=60)))  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """It sees the packages that the tests run with, by a path that leads to the clone by no way."""
    environment, elsewhere = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    venv.create(environment, symlinks=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    own = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    python = environment / "bin" / "python"
    words = ["--python", str(python), "install", "--no-deps", "--no-index", "--no-compile", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300, cwd=elsewhere)
    (own / "theirs.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    # Somebody else's app lies where the program is started: nothing of it may be taken for ours.
    for name in ("pages", "lrc_core"):
        (elsewhere / name).mkdir()
        (elsewhere / name / "__init__.py").write_text("raise AssertionError('not ours')\n", encoding="utf-8")
    (elsewhere / ".streamlit").mkdir()
    (elsewhere / ".streamlit" / "config.toml").write_text("[client]\nshowSidebarNavigation = true\n", encoding="utf-8")
    return Installed(environment, elsewhere)


def test_one_name_of_ours_lands_among_everybodys_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"lrc_core"}
    for what in ("app.py", "pages/watch.py", ".streamlit/config.toml", "assets/style.css", "docs/bench_starter.md"):
        assert f"lrc_core/_app/{what}" in names
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "assets").rglob("*") if path.is_file()}
    brought = {name.removeprefix("lrc_core/_app/") for name in names if name.startswith("lrc_core/_app/assets/")}
    assert brought == {name for name in ours if not name.startswith("assets/screenshots/")}


def test_pinned_versions_lie_in_the_ranges_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.partition("#")[0].strip().lower().split("==") for line in lines if "==" in line)
    extras = [words for group in project["optional-dependencies"].values() for words in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_it_speaks_from_its_own_folder(installed: Installed) -> None:
    shown = json.loads(installed.lrc("doctor", "--json"))
    assert shown["version"] in next(installed.environment.rglob(f"{DISTRIBUTION}-*.dist-info")).name
    where = "import lrc_core; print(lrc_core.__file__)"
    python = str(installed.environment / "bin" / "python")
    done = subprocess.run([python, "-P", "-c", where], capture_output=True, text=True, env=installed.variables)
    assert Path(done.stdout.strip()).is_relative_to(installed.environment), done.stderr


@pytest.mark.parametrize(
    "words", [("demo",), ("app", "--no-starter", "--allow-host", "app.example")], ids=lambda w: w[0]
)
def test_its_server_runs_the_first_page(installed: Installed, words: tuple[str, ...]) -> None:
    with installed.serving(*words) as port:
        messages = page_of(port)
    assert messages[-1].script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
    elements = [message.delta.new_element for message in messages if message.WhichOneof("type") == "delta"]
    assert not [element for element in elements if element.WhichOneof("type") in ("exception", "alert")]
    shown = " ".join(element.heading.body for element in elements if element.WhichOneof("type") == "heading")
    assert "Low-rank compression explorer" in shown
    config = next(message.new_session.config for message in messages if message.WhichOneof("type") == "new_session")
    assert config.hide_sidebar_nav  # our settings, not those of the folder where it was started
    said = "".join(str(element.markdown.body) for element in elements)
    assert ("lrc app" in said) == (words[0] == "demo") and "`make" not in said


def test_it_allocates(installed: Installed) -> None:
    model = save_tiny(installed.environment / "tiny")
    (installed.elsewhere / "calibrate.txt").write_text(tiny_text(6000), encoding="utf-8")
    calibration = ("--text", "calibrate.txt", "--windows", "8", "--window", "32")
    line = ("allocate", str(model), "--method", "lagrangian", "--keep", "0.7", *calibration, "--json")
    result: dict[str, Any] = json.loads(installed.lrc(*line))
    assert 0.5 < result["plan"]["keep_achieved"] <= 0.7
    assert json.loads(installed.lrc("runs", "list", "--json"))["runs"][0]["id"] == result["run_id"]
