"""``lrc methods`` lists what is registered, with settings and papers."""

from __future__ import annotations

import json

import pytest

from lrc_core.cli import main
from lrc_core.cli.parser import build_parser
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.updates import KINDS as UPDATES


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert [entry["name"] for entry in found] == [*ALLOCATORS.names(), *DECOMPOSITIONS.names(), *UPDATES]
    assert all(entry["summary"] for entry in found)
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {entry['name']}  " in out for entry in found)


@pytest.mark.parametrize("name", [*ALLOCATORS.names(), *DECOMPOSITIONS.names(), *UPDATES])
def test_one_is_shown_with_its_settings_and_paper(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", name, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["methods"]
    assert main(["methods", name]) == 0
    out = capsys.readouterr().out
    assert entry["source"] in out
    for setting in entry["settings"]:
        assert setting["name"] in out and setting["help"] in out


def test_an_unknown_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "strz"]) == 1
    assert "strs?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["spectra", "allocate", "compare", "plan"])
def test_help_lists_every_decomposition(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert ", ".join(DECOMPOSITIONS.names()) in out
    assert command not in ("allocate", "compare") or "lrc methods" in out
