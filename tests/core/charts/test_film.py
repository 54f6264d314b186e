"""A run as a film: what is drawn is what was recorded, thinned evenly; the files stand alone."""

from __future__ import annotations

import io
import json
import re
import tomllib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lrc_core.allocate  # noqa: F401  registers the methods
from lrc_core.budget import is_dense, layer_ratio
from lrc_core.charts import film_gif as film_gif_module
from lrc_core.charts import theme
from lrc_core.charts.film import MOST_FRAMES, MOST_TICKS, Film, film_of, make_film, thinned
from lrc_core.charts.film_gif import film_gif
from lrc_core.charts.film_html import film_html, player
from lrc_core.cli import main
from lrc_core.errors import RunError
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import Run, RunStore
from tests.factories import run_factory
from tests.tree import ROOT

CARD = run_factory.make_card()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_factory.allocate_run(RunStore(tmp_path / "runs"), CARD, keep=0.7)


def test_a_film_names_its_decomposition_as_pages_do(run: Run) -> None:
    assert DECOMPOSITIONS.get(run.spec_as(AllocateSpec).decomposition).label in film_of(run).detail.split(" · ")


def tick(step: int, keep: float = 0.9, **values: Any) -> dict[str, Any]:
    content = {"keep": keep, "target": 0.7, "loss": 1.0 / step, **values}
    return {"t": float(step), "phase": "training masks", "step": step, "total": 50, "values": content}


def snapshot(step: int, ranks: list[int]) -> dict[str, Any]:
    return {"step": step, "keep": 0.9, "ranks": ranks}


def film(events: list[dict[str, Any]], snapshots: list[dict[str, Any]] | None = None, **settings: Any) -> Film:
    spec = run_factory.allocate_spec(CARD, keep=0.7, settings=settings)
    return make_film("allocate-x", spec, CARD, events, snapshots or [])


def test_a_film_shows_what_the_run_recorded(run: Run) -> None:
    made = film_of(run)
    events = [event for event in run.events() if event["values"]]
    assert made.ticks["step"] == [event["step"] for event in events]
    for event, rate, speed in zip(events, made.ticks["removed"], made.ticks["tokens_per_s"], strict=True):
        assert rate == pytest.approx(1 - event["values"]["keep"], abs=1e-4)
        assert speed == event["values"]["tokens_per_s"]
    lines = (run.path / "ranks.jsonl").read_text().splitlines()
    assert made.frames["ranks"] == [json.loads(line)["ranks"] for line in lines]
    assert made.color == ALLOCATORS.get("llrc").color
    assert made.removed == pytest.approx(0.3)


def test_the_share_kept_is_the_budgets(run: Run) -> None:
    made = film_of(run)
    for frame, ranks in enumerate(made.frames["ranks"]):
        for layer, rank, kept, cell in zip(CARD.layers, ranks, made.kept(frame), made.cells, strict=True):
            assert kept == pytest.approx(layer_ratio(layer, rank), abs=1e-6)
            assert (rank >= cell[3]) == is_dense(layer, rank)


@pytest.mark.parametrize(
    ("budget", "said"), [("", "30 %"), ("bytes:0.2", "20 % of the bytes"), ("latency:0.7", "70 % of the time")]
)
def test_a_film_says_what_its_run_goes_to(budget: str, said: str) -> None:
    spec = run_factory.allocate_spec(CARD, "successive", 1.0 if budget else 0.7, budget=budget)
    ticks = [{**tick(step), "values": dict(tick(step)["values"])} for step in (1, 2)]
    for one in ticks:
        if budget:
            del one["values"]["target"]
    made = make_film("allocate-x", spec, CARD, ticks, [snapshot(1, [1] * len(CARD.layers))])
    assert made.target == said and said in made.title
    assert (made.removed is None) == bool(budget)
    drawn = {name for chart in made.charts for name in chart.series}
    assert drawn <= set(made.ticks) and ("to_remove" in drawn) != bool(budget)
    film_gif(made)


def test_a_step_told_twice_counts_as_told_last() -> None:
    again = [tick(1), tick(2, 0.5), tick(3, 0.5), tick(2, 0.8), {"step": 9, "values": None}, {"phase": "x"}]
    made = film(again, [snapshot(5, [1] * len(CARD.layers)), snapshot(5, [2] * len(CARD.layers)), snapshot(6, [1])])
    assert made.ticks["step"] == [1, 2, 3]
    assert made.ticks["removed"][1] == pytest.approx(0.2)
    assert made.frames["ranks"] == [[2] * len(CARD.layers)]  # one that does not fit the model is passed over


def test_a_long_run_is_thinned_with_both_ends(run: Run) -> None:
    ranks = [1] * len(CARD.layers)
    made = film([tick(step) for step in range(1, 5001)], [snapshot(step, ranks) for step in range(5, 5001, 5)])
    assert len(made.ticks["step"]) == len(made.ticks["loss"]) == MOST_TICKS
    assert len(made.frames["step"]) == len(made.frames["ranks"]) == MOST_FRAMES
    assert (made.ticks["step"][0], made.ticks["step"][-1]) == (1, 5000)
    assert made.frames["step"][-1] == 5000
    assert thinned([3, 4, 5], 9) == [3, 4, 5]
    gaps = [b - a for a, b in zip(thinned(range(1000), 7), thinned(range(1000), 7)[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_models_of_many_layers_get_fewer_frames() -> None:
    wide = run_factory.make_card(blocks=120)
    ranks = [snapshot(step, [1] * len(wide.layers)) for step in range(1, 401)]
    made = make_film("allocate-x", run_factory.allocate_spec(wide, keep=0.7), wide, [tick(1)], ranks)
    assert 40 <= len(made.frames["step"]) < MOST_FRAMES
    assert (made.frames["step"][0], made.frames["step"][-1]) == (1, 400)


def test_figures_that_are_no_numbers_leave_a_gap() -> None:
    made = film([tick(1, loss=float("nan")), tick(2, loss=None), tick(3, loss=0.25)])
    assert made.ticks["loss"] == [None, None, 0.25]
    json.dumps(made.to_dict(), allow_nan=False)


def test_old_records_say_what_they_lack_and_units_follow_the_settings() -> None:
    old = {chart.key: chart for chart in film([tick(1, distill=0.3)], distillation="logits").charts}
    assert not {"entropy", "memory"} & set(old), "what was not recorded is not drawn"
    assert "nats" in old["distill"].unit
    new = {chart.key: chart for chart in film([tick(1, entropy=0.4, memory_mb=9.0, tv=0.0)]).charts}
    assert new["entropy"].series == ("entropy",) and new["memory"].series == ("memory_mb",)
    assert "tv" not in new  # switched off


def test_a_run_without_training_has_no_film(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(RunError, match="recorded no training") as refused:
        film_of(run_factory.allocate_run(store, CARD, method="uniform"))
    assert "llrc" in refused.value.remedy
    with pytest.raises(RunError, match="allocates nothing"):
        film_of(run_factory.spectra_run(store, CARD))
    with pytest.raises(RunError, match="recorded no ranks"):
        film_gif(film([tick(1)]))


class Elements(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_html_holds_everything_and_asks_for_nothing(run: Run) -> None:
    text = film_html(film_of(run))
    assert not [found for found in Elements(text).found if {"src", "href"} & set(found[1])]
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    figures = text.split('id="figures">')[1].split("</script>")[0]
    assert json.loads(figures) == json.loads(json.dumps(film_of(run).to_dict()))
    assert run.id in text


def test_words_from_outside_cannot_end_the_script(run: Run) -> None:
    from dataclasses import replace

    evil = replace(film_of(run), detail="</script><script>alert(1)</script>", title="<b>&")
    text = film_html(evil)
    assert "<script>alert" not in text
    assert "<h1>&lt;b&gt;&amp;</h1>" in text
    assert len([tag for tag, _ in Elements(text).found if tag == "script"]) == 2


def test_the_gif_moves_and_ends_at_the_last_ranks(run: Run) -> None:
    made = film_of(run)
    image = Image.open(io.BytesIO(film_gif(made)))
    assert image.format == "GIF"
    assert 1 < image.n_frames <= len(made.frames["step"])
    assert image.info["loop"] == 0
    first = image.convert("RGB").tobytes()
    image.seek(image.n_frames - 1)
    assert image.convert("RGB").tobytes() != first
    assert image.info["duration"] > 1000


def test_the_gifs_target_is_dashed_and_its_axis_round(run: Run) -> None:
    made = film_of(run)
    for chart in made.charts[:2]:
        ticks = film_gif_module._ticks(made, chart)
        steps = {round(b - a, 9) for a, b in pairwise(ticks)}
        assert len(steps) == 1 and f"{steps.pop():e}"[0] in "125"
        shown = [value for name in chart.series for value in made.ticks[name] if value is not None]
        assert ticks[0] <= min(shown) and max(shown) <= ticks[-1]
    dashes = film_gif_module._dashes([(0.0, 0.0), (7.0, 0.0), (30.0, 0.0)])
    drawn = sum(b[0] - a[0] for a, b in dashes)
    assert 0.4 * 30 < drawn < 0.7 * 30 and len(dashes) > 3


def test_the_command_writes_both_files(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, moving = tmp_path / "film.html", tmp_path / "film.gif"
    words = ["runs", "film", str(run.path), "--html", str(page), "--gif", str(moving), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run_id"] == run.id
    assert [entry["bytes"] for entry in told["files"]] == [page.stat().st_size, moving.stat().st_size]
    monkeypatch.setenv("LRC_RUNS", str(run.path.parent))
    assert main(["runs", "film", run.id, "--gif", str(moving)]) == 0
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "none"))
    monkeypatch.setenv("LRC_SAMPLES", str(run.path.parent))
    assert main(["runs", "film", run.id, "--gif", str(moving)]) == 0, "a shipped run by its id"
    assert main(["runs", "film", run.id]) == 1
    said = capsys.readouterr().err
    assert "--html" in said and "--gif" in said
    assert main(["runs", "film", "allocate-none", "--gif", str(moving)]) == 1
    assert main(["runs", "film", run.id, "--gif", str(tmp_path / "no" / "folder.gif")]) == 1


def test_the_colours_are_the_apps() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
    for name, ours in (("light", theme.LIGHT), ("dark", theme.DARK)):
        for key, value in ours.items():
            camel = re.sub(r"-(\w)", lambda match: match[1].upper(), key)
            theirs = config[name][camel]
            assert value == (",".join(theirs) if isinstance(theirs, list) else theirs), key


def test_a_ramp_meets_its_colours() -> None:
    for place, colour in enumerate(theme.RAMP_LIGHT):
        red, green, blue = theme.blended(theme.RAMP_LIGHT, place / (len(theme.RAMP_LIGHT) - 1))
        assert f"#{red:02x}{green:02x}{blue:02x}" == colour
    assert theme.blended(theme.RAMP_DARK, -1.0) == theme.blended(theme.RAMP_DARK, 0.0)


def test_the_player_is_a_module_that_mounts() -> None:
    script, style = player()
    assert len(re.findall(r"export\s+default\s+function\s+mount", script)) == 1
    assert "import " not in script
    assert ".film" in style
