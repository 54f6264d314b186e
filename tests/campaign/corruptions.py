"""Files of runs are damaged, and everything that reads them is asked.

What must hold: lists work; what a finished run says is what it said, or is refused by the program's own error; any run
can be deleted.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lrc_core.charts.film import film_of
from lrc_core.cli import main
from lrc_core.errors import LrcError
from lrc_core.jobs import manager
from lrc_core.results.archive import Archive
from lrc_core.results.plans import find_plan, load_plan
from lrc_core.results.spectra import spectra_of
from lrc_core.runs.integrity import digests_of
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import read_answers
from tests.campaign.tally import Tally
from tests.factories import run_factory
from tests.factories.malformed import spoiled


def damage_records(folder: Path, *, seed: int, times: int) -> Tally:
    """Damage files of runs as jobs leave them, one at a time, and ask every reader."""
    tally, chance = Tally("corruptions"), random.Random(seed)
    good = _runs(folder / "good")
    meanings = {run.id: {name: _asked(read, tally) for name, read in _readers(run).items()} for run in good}
    files = [path for run in good for path in sorted(run.path.rglob("*")) if path.is_file() and path.suffix]
    for number in range(times):
        path = chance.choice(files)
        root = folder / f"damaged-{number}"
        shutil.copytree(folder / "good", root)
        damaged = root / path.relative_to(folder / "good")
        way, raw = spoiled(path.read_bytes(), chance)
        if raw == path.read_bytes():
            continue
        damaged.write_bytes(raw)
        tally.count("files damaged", f"with {way}")
        _look(RunStore(root), damaged, way, meanings, tally)
        shutil.rmtree(root)
        if number % 100 == 99:
            tally.note(f"{number + 1} files")
    return tally


def _runs(root: Path) -> list[Run]:
    store, card = RunStore(root), run_factory.make_card()
    runs = [
        run_factory.allocate_run(store, card),
        run_factory.allocate_run(store, card, method="uniform", keep=0.7),
        run_factory.spectra_run(store, card),
        run_factory.lesson_run(store, card),
        run_factory.generate_run(store, card),
    ]
    unfinished = ((0.6, "cancelled"), (0.5, "failed"))
    return [*runs, *(run_factory.allocate_run(store, card, keep=keep, state=state) for keep, state in unfinished)]


def _readers(run: Run) -> dict[str, Callable[[], Any]]:
    """What is read of a run, by what a user would call it."""
    store = RunStore(run.path.parent)
    plans = {path.name: path for path in sorted((run.path / "plans").glob("*.json"))}
    return {
        "spec": lambda: Run(run.path).spec,
        "status": lambda: run.status().to_dict(),
        "result": run.result,
        "card": run.card,
        "events": run.events,
        "ranks": lambda: run.read_ranks()[0],
        "plan": lambda: find_plan(run.id, store).plan,
        "film": lambda: film_of(run),
        "answers": lambda: read_answers(run),
        "spectra": lambda: _listed(spectra_of(Archive((store,)).require(run.id, SpectraSpec))),
        **{f"plan {name}": lambda path=path: load_plan(path).to_dict() for name, path in plans.items()},  # type: ignore[misc]
    }


def _listed(found: Any) -> Any:
    return json.dumps(found, default=lambda values: values.tolist() if hasattr(values, "tolist") else vars(values))


class _Refused:
    """What a reader says that refuses: equal to nothing but another refusal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Refused)

    __hash__ = None  # type: ignore[assignment]


def _asked(read: Callable[[], Any], tally: Tally, said: str = "") -> Any:
    try:
        return read()
    except LrcError as error:
        tally.require(bool(str(error).strip()), f"an error without words: {said}")
        return _Refused()
    except Exception as error:
        if said:
            tally.require(False, f"{type(error).__name__}: {str(error)[:80]}: {said}")
        return _Refused()


def _look(store: RunStore, damaged: Path, way: str, meanings: dict[str, dict[str, Any]], tally: Tally) -> None:
    run = Run(store.root / damaged.relative_to(store.root).parts[0])
    name = damaged.relative_to(run.path).as_posix()
    said = f"{run.id.rpartition('-')[0]}/{name}, {way}"
    digested = name == "spec.json" or name in digests_of(run.path)
    manager.reconcile(store=store)
    rows = {row.id: row for row in store.list()}
    tally.require(rows.keys() == meanings.keys(), f"runs are missing from the list: {said}")
    tally.count(f"shown as {rows[run.id].state}")
    for other in rows.values():
        tally.require(other.id == run.id or other.state != "damaged", f"another run is damaged: {said}")
    refused = rows[run.id].state == "damaged"
    for reader, read in _readers(run).items():
        now, before = _asked(read, tally, f"{reader}: {said}"), meanings[run.id].get(reader)
        refused |= isinstance(now, _Refused) and not isinstance(before, _Refused)
        if digested:
            tally.require(isinstance(now, _Refused) or now == before, f"believed silently: {reader}: {said}")
    tally.count("refused" if refused else "of no consequence" if digested else "not digested, read as far as it goes")
    _commands(store, run, said, tally)
    _delete(store, run, said, tally)


def _commands(store: RunStore, run: Run, said: str, tally: Tally) -> None:
    for words in (["runs", "list"], ["runs", "show", run.id], ["runs", "show", run.id, "--json"]):
        output = io.StringIO()
        with (
            patch.dict(os.environ, {"LRC_RUNS": str(store.root)}),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            main(words)
        tally.require("Unexpected" not in output.getvalue(), f"lrc {words[1]}: {output.getvalue()[:100]}: {said}")


def _delete(store: RunStore, run: Run, said: str, tally: Tally) -> None:
    row = next(row for row in store.list() if row.id == run.id)
    try:
        if row.state in ("queued", "running", "cancelling"):  # as the damaged record says
            manager.cancel(run.id, store=store)
        manager.delete(run.id, store=store)
    except Exception as error:
        tally.require(False, f"cannot be deleted ({type(error).__name__}: {error}): {said}")
    tally.require(not run.path.exists(), f"is not deleted: {said}")
