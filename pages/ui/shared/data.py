"""What the pages read: run folders of the user and the shipped samples. Files only, never a model."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar, overload

import numpy as np
import streamlit as st

from lrc_core.errors import LrcError, PlanError, RunError
from lrc_core.paths import read_only, samples_home
from lrc_core.plan import Plan
from lrc_core.runs.records import Status
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    CompareSpec,
    ModelRef,
    QualitySpec,
    Spec,
    SpectraSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard
from lrc_core.words import percent
from pages.ui.shared.state import same_model

SAMPLES = samples_home()
S = TypeVar("S", bound=Spec)
S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True)
class RunView(Generic[S_co]):
    """One readable run as the pages see it, typed by what was asked for.

    Attributes:
        run: its folder.
        spec: what was asked for.
        status: where it stood when it was read.
        sample: shipped with the program, not the user's own.
    """

    run: Run
    spec: S_co
    status: Status
    sample: bool

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def done(self) -> bool:
        return self.status.state == "done"

    @property
    def final(self) -> bool:
        return self.status.final


AnyRun = RunView[Spec]
"""A run of whatever kind."""


def asks_for(view: AnyRun, kind: type[S]) -> TypeGuard[RunView[S]]:
    """Whether a run is of a kind."""
    return isinstance(view.spec, kind)


def own_store() -> RunStore:
    return RunStore()


def _stores() -> list[tuple[RunStore, bool]]:
    """Where runs lie, the user's own first, and whether they are samples. Read-only, there are samples alone."""
    shipped = (RunStore(SAMPLES), True)
    return [shipped] if read_only() else [(own_store(), False), shipped]


@lru_cache(maxsize=4096)  # asked for hundreds of times a page: Streamlit's own cache would cost most of a page switch
def _view(path: str, stamps: tuple[tuple[int, int], ...], sample: bool) -> AnyRun | None:
    """A run as its files were at those stamps; None when it is damaged."""
    run = Run(Path(path))
    try:
        return RunView(run, run.spec, run.status(), sample)
    except LrcError:
        return None


def _views(store: RunStore, sample: bool) -> list[AnyRun]:
    """Newest first. Damaged folders are left out: the Runs page lists them with their own words."""
    paths = [os.path.join(store.root, run_id) for run_id in store.ids()]
    found = [
        _view(path, tuple(stamp(f"{path}/{name}") for name in ("spec.json", "status.json", "cancel")), sample)
        for path in paths
    ]
    views = [view for view in found if view is not None]
    return sorted(views, key=lambda view: (-view.status.created_at, view.id))


@overload
def all_runs(kind: None = None, ref: ModelRef | None = None, *, samples: bool = True) -> list[AnyRun]: ...
@overload
def all_runs(kind: type[S], ref: ModelRef | None = None, *, samples: bool = True) -> list[RunView[S]]: ...
def all_runs(kind: type[Any] | None = None, ref: ModelRef | None = None, *, samples: bool = True) -> list[Any]:
    """Runs of a kind and a model (or of all), newest first, the user's own before the shipped samples."""
    return [
        view
        for store, sample in _stores()
        if samples or not sample
        for view in _views(store, sample)
        if (kind is None or isinstance(view.spec, kind)) and (ref is None or same_model(view.spec.model, ref))
    ]


@overload
def open_run(run_id: str, kind: None = None) -> AnyRun | None: ...
@overload
def open_run(run_id: str, kind: type[S]) -> RunView[S] | None: ...
def open_run(run_id: str, kind: type[Any] | None = None) -> RunView[Any] | None:
    """A run of the user or a sample by id; None when there is none of that kind that can be read."""
    for store, sample in _stores():
        try:
            run = store.open(run_id)
            view = RunView(run, run.spec, run.status(), sample)
        except LrcError:
            continue
        return view if kind is None or isinstance(view.spec, kind) else None
    return None


def require_run(run_id: str, kind: type[S]) -> RunView[S]:
    """:func:`open_run` where the run was there a moment ago.

    Raises:
        RunError: it has gone.
    """
    view = open_run(run_id, kind)
    if view is None:
        raise RunError(f"Run {run_id} is gone.", "It was deleted meanwhile; load the page again.")
    return view


def stamp(path: Path | str) -> tuple[int, int]:
    """What changes when a file changes: its time and size (zeros when it is missing)."""
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@st.cache_data(max_entries=64, show_spinner=False)
def _json(path: str, stamp: tuple[int, int]) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_json(path: Path) -> Any:
    """A JSON file of a run folder, cached until it changes.

    Raises:
        RunError: missing or damaged.
    """
    try:
        return _json(str(path), stamp(path))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing.", "Delete the run on the Runs page and start it again.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.", "Delete the run and start it again.") from error


def card_of(view: AnyRun) -> ModelCard:
    """The model card of a spectra or allocate run."""
    try:
        return ModelCard.from_dict(read_json(view.path / "card.json"))
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{view.path / 'card.json'} is damaged: {error}.", "Delete the run and start it again."
        ) from error


@dataclass(frozen=True)
class Spectra:
    """Singular values of every layer under each decomposition, descending."""

    card: ModelCard
    decompositions: tuple[str, ...]
    values: dict[str, dict[str, np.ndarray]]


@st.cache_resource(max_entries=6, show_spinner="Reading spectra …")
def _spectra(path: str, stamp: tuple[int, int]) -> dict[str, dict[str, np.ndarray]]:
    """Shared by everyone who asks, so that no click waits for a copy of megabytes; nobody may write into it."""
    values: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as archive:
        for key in archive.files:
            decomposition, _, layer = key.partition("/")
            values.setdefault(decomposition, {})[layer] = archive[key].astype(np.float64)
            values[decomposition][layer].flags.writeable = False
    return values


def spectra_of(view: AnyRun) -> Spectra:
    """The spectra of a finished run.

    Raises:
        RunError: the file is missing or damaged, or lacks a layer of the card.
    """
    card, path = card_of(view), view.path / "spectra.npz"
    try:
        values = _spectra(str(path), stamp(path))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}.", "Delete the run and start it again.") from error
    for decomposition, by_layer in values.items():
        for layer in card.layers:
            if layer.name not in by_layer:
                raise RunError(
                    f"{path} lacks {layer.name} under {decomposition}.", "Delete the run and start it again."
                )
    return Spectra(card, tuple(values), values)


def best_spectra(ref: ModelRef) -> RunView[SpectraSpec] | None:
    """The run whose spectra are shown: the user's newest finished one, else a sample.

    One that loaded the model knows more than one that streamed it from disk, and comes first.
    """
    done = done_spectra(ref)
    return done[0] if done else None


def done_spectra(ref: ModelRef | None = None) -> list[RunView[SpectraSpec]]:
    """Finished spectra runs of a model (or of all), the one that is shown by itself first.

    A sample that the user has made again, which gives it the same id, is the user's run.
    """
    done: dict[str, RunView[SpectraSpec]] = {}
    for view in all_runs(SpectraSpec, ref):
        if view.done:
            done.setdefault(view.id, view)
    return sorted(done.values(), key=lambda view: view.spec.stream)


@dataclass(frozen=True)
class Recorded:
    """One plan that a run recorded, learned or computed, at one rate."""

    view: RunView[AllocateSpec]
    compression: float
    path: Path
    final: bool

    @property
    def words(self) -> str:
        return f"{percent(self.compression)} · {self.view.id}" + (" · sample" if self.view.sample else "")


def recorded_plans(views: Iterable[RunView[AllocateSpec]]) -> list[Recorded]:
    """Every plan in allocate runs: those written on the way, and the final ones."""
    found = []
    for view in views:
        folder = view.path / "plans"
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            if path.stem.isdigit():
                found.append(Recorded(view, int(path.stem) / 100, path, final=False))
        if (view.path / "plan.json").is_file():
            found.append(Recorded(view, 1 - view.spec.keep, view.path / "plan.json", final=True))
    return found


def nearest(plans: list[Recorded], compression: float) -> Recorded | None:
    """The recorded plan closest to a rate; at equal distance the final one, then the newer run."""
    if not plans:
        return None
    return min(
        plans, key=lambda plan: (round(abs(plan.compression - compression), 6), not plan.final, plan.view.sample)
    )


@lru_cache(maxsize=512)
def _plan(path: str, stamp: tuple[int, int]) -> Plan:
    return Plan.load(Path(path))


def load_plan(path: Path) -> Plan:
    """A plan file, cached until it changes."""
    if not path.is_file():
        raise PlanError(f"The plan {path} is missing.", "Delete the run on the Runs page and start it again.")
    return _plan(str(path), stamp(path))


def newest_card(ref: ModelRef) -> tuple[ModelCard, AnyRun] | None:
    """A card of this model from any run that wrote one; better one of the loaded model than one of its headers."""
    found = None
    for view in all_runs(ref=ref):
        if isinstance(view.spec, SpectraSpec | AllocateSpec) and (view.path / "card.json").is_file():
            card = card_of(view)
            if not card.identity.header_only:
                return card, view
            found = found or (card, view)
    return found


def fetched(ref: ModelRef) -> bool:
    """Whether a job of the user's own has already brought this model in."""
    own = all_runs(ref=ref, samples=False)
    return any(view.done for view in own if not isinstance(view.spec, CompareSpec | QualitySpec | AblationSpec))
