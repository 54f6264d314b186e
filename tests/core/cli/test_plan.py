"""``lrc plan``: the same moves as on the Plans page, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrc_core.cli import main
from lrc_core.plan import Plan
from lrc_core.runs.store import RunStore
from tests.factories import run_factory

CARD = run_factory.make_card()
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture(autouse=True)
def _read_model() -> None:
    run_factory.spectra_run(RunStore(), CARD)


def test_ranks_are_set_the_rest_is_spent_and_it_goes_on_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    words = ["plan", "--keep", "0.7", "--rank", f"{LAYER}=3", "--lock", "layers.0.self_attn", "--save", str(first)]
    assert main([*words, "--name", "Mine"]) == 0
    plan = Plan.load(first)
    plan.check_model(CARD)
    assert plan.ranks[LAYER] == 3 and 0.69 < plan.keep_achieved <= 0.7
    assert plan.origin["hand"]["name"] == "Mine" and len(plan.origin["hand"]["locked"]) == 5
    assert "5 layers locked" in capsys.readouterr().out
    again = ["plan", "--from", str(first), "--keep", "0.8", "--rank", "model.layers.2.mlp.down_proj=dense"]
    assert main([*again, "--save", str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["plan"]
    assert found["ranks"][LAYER] == 3 and "model.layers.2.mlp.down_proj" in found["dense"]
    assert len(found["origin"]["hand"]["locked"]) == 6 and found == json.loads(second.read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rank", "nothing=3"], "no layer 'nothing'"),
        (["--rank", f"{LAYER}=9999"], "from 1 to 48"),
        (["--lock", "unheard"], "No layer's name holds"),
        (["--keep", "1.5"], "above 0 and at most 1"),
        (["--from", "nowhere"], "no plan file"),
        (["--rank", f"{LAYER}=dense", "--lock", "mlp", "--keep", "0.2"], "locked layers"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words, "--save", str(tmp_path / "p.json")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


def test_a_model_that_nobody_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "owner/other", "--save", str(tmp_path / "p.json")]) == 1
    assert "lrc spectra owner/other" in capsys.readouterr().err
