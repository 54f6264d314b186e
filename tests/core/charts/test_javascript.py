"""The scripts of assets: their pure functions, run in Node, agree with the same ideas in Python.

Skips loudly where there is no Node; under CI=true that is a failure.
"""

from __future__ import annotations

import base64
import bisect
import itertools
import json
import os
import random
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from lrc_core.budget import LAWS, layer_ratio, stored
from lrc_core.charts.film import cells_of
from lrc_core.results.series import packed
from lrc_core.types import LinearShape
from pages.ui.shared.prose import ASSETS

BASE = "film/base.js"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        message = "NO NODE: the scripts of assets were not tested. Install one (apt-get install nodejs)."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def called(node: str, files: tuple[str, ...], name: str, *calls: tuple[Any, ...]) -> list[Any]:
    """What a function that the files define returns for each list of arguments."""
    # As the pages do it, one scope for all files; what a module exports is nothing here.
    script = "\n".join((ASSETS / file).read_text(encoding="utf-8") for file in files).replace(
        "export default ", "void "
    )
    script += f"\nconsole.log(JSON.stringify({json.dumps(calls)}.map((given) => {name}(...given))));"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("path", sorted(ASSETS.rglob("*.js")), ids=lambda path: path.name)
def test_scripts_can_be_parsed(node: str, path: Any) -> None:
    done = subprocess.run([node, "--check", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or "Unexpected token 'export'" in done.stderr, done.stderr


def test_ranks_that_python_packs_are_unpacked(node: str) -> None:
    draw = np.random.default_rng(0)
    tables = [draw.integers(0, high, shape) for high, shape in ((2, (1, 1)), (576, (40, 210)), (70_000, (3, 7)))]
    calls = [(packed(table), *table.shape) for table in tables]
    found = called(node, (BASE, "film/ranks.js", "components/ratedrag.js"), "unpacked", *calls)
    assert found == [table.tolist() for table in tables]


def test_the_nearest_rate_is_found(node: str) -> None:
    rates = [5, 10, 20, 40]
    wanted = [-3, 5, 7, 8, 16, 39, 90]
    found = called(
        node, (BASE, "film/ranks.js", "components/ratedrag.js"), "nearestIndex", *((rates, rate) for rate in wanted)
    )
    assert found == [min(range(4), key=lambda place: abs(rates[place] - rate)) for rate in wanted]


def test_ticks_are_evenly_spaced_round_numbers_in_the_range(node: str) -> None:
    draw = random.Random(0)
    ranges = [(0, 1, 5), (3, 3, 4), (-0.2, 0.2, 5), (1e-7, 3e-7, 4)]
    ranges += [(low := draw.uniform(-1e3, 1e3), low + draw.uniform(1e-3, 1e4), draw.randint(5, 9)) for _ in range(50)]
    for (low, high, _), ticks in zip(ranges, called(node, (BASE,), "niceTicks", *ranges), strict=True):
        assert all(low - 1e-6 * abs(low) <= tick <= high + 1e-6 * abs(high) for tick in ticks)
        steps = [after - before for before, after in itertools.pairwise(ticks)]
        if high > low:
            assert len(ticks) >= 2
            assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)
            assert float(f"{steps[0]:.6g}".replace(".", "").split("e")[0].strip("0") or 0) in (1, 2, 25, 5)


def test_the_last_entry_at_a_position(node: str) -> None:
    steps = [0, 2, 2, 5, 9]
    wanted = [-1, 0, 1, 2, 8, 9, 100]
    found = called(node, (BASE, "film/chart.js"), "lastAt", *((steps, position) for position in wanted))
    assert found == [bisect.bisect_right(steps, position) - 1 for position in wanted]


def test_figures_are_written_with_three_digits(node: str) -> None:
    calls = [(None, "number"), (0.12345, "percent"), (0.00123456, "number"), (1234.5, "number"), (123456, "number")]
    assert called(node, (BASE,), "formatted", *calls) == ["–", "12.3 %", "0.00123", "1230", "123 k"]


def test_colours_run_from_one_end_of_the_ramp_to_the_other(node: str) -> None:
    ramp = [[0, 0, 0], [100, 200, 50], [200, 0, 250]]
    shares = [-1, 0, 0.25, 0.5, 0.75, 1, 2]
    found = called(node, (BASE, "film/ranks.js"), "rampColor", *((ramp, share) for share in shares))
    mixed = [
        [np.interp(2 * min(1, max(0, share)), range(3), part) for part in zip(*ramp, strict=True)] for share in shares
    ]
    assert found == [f"rgb({','.join(str(int(part + 0.5)) for part in color)})" for color in mixed]


def test_a_rank_from_which_a_layer_is_dense_keeps_all_of_it(node: str) -> None:
    shape = LinearShape("q", 0, "q", 576, 576)
    for storage in LAWS.values():
        (layer,) = stored([shape], storage.name)
        (cell,) = cells_of([layer], ["q"])
        ranks = (0, 144, 287, 288, 400, 575, 576)
        found = called(node, (BASE, "film/ranks.js"), "keptOf", *((list(cell), rank) for rank in ranks))
        assert found == pytest.approx([layer_ratio(layer, rank) if rank else 0 for rank in ranks], abs=1e-6)


def test_arrow_keys_move_to_the_nearest_cell_of_a_row_or_column(node: str) -> None:
    cells = [[row, column] for row in range(3) for column in range(4) if (row, column) != (1, 2)]
    places = {tuple(cell): place for place, cell in enumerate(cells)}
    moves = {"down": (1, 0), "up": (-1, 0), "right": (0, 1), "left": (0, -1), "home": (0, -1e6), "end": (0, 1e6)}
    wanted = [
        ((0, 0), "down", (1, 0)),
        ((0, 0), "up", (0, 0)),
        ((1, 1), "left", (1, 0)),
        ((2, 1), "home", (2, 0)),
        ((0, 1), "end", (0, 3)),
        ((2, 3), "down", (2, 3)),
    ]
    calls = [({"cells": cells}, places[start], list(moves[move])) for start, move, _ in wanted]
    found = called(node, ("components/cellgrid.js",), "moved", *calls)
    assert found == [places[end] for _, _, end in wanted]


def test_spectra_arrive_as_they_were(node: str) -> None:
    values = np.array([1.5, 2.25e-3, 7e5], dtype=np.float32)
    text = base64.b64encode(values.tobytes()).decode()
    (found,) = called(node, ("components/spectrum.js",), "((text) => [...numbers(text)])", (text,))
    assert found == values.tolist()


def test_powers_of_ten_are_found_and_written(node: str) -> None:
    files = ("components/spectrum.js",)
    assert called(node, files, "powers", (0.5, 2000), (1, 1), (0.02, 0.09)) == [[1, 10, 100, 1000], [1], []]
    assert called(node, files, "raised", (1,), (1e3,), (1e-12,)) == ["1", "10³", "10⁻¹²"]
