"""Where runs are looked up: the user's own and the shipped samples, typed by what was asked for.

In a notebook::

    from lrc_core.results.archive import archive
    from lrc_core.runs.spec import AllocateSpec

    for view in archive().runs(AllocateSpec):
        print(view.id, view.spec.method, view.spec.keep)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar, overload

from lrc_core.digests import stamp_of as stamp_of
from lrc_core.errors import LrcError, RunError
from lrc_core.paths import expanded, read_only, samples_home
from lrc_core.records import parse
from lrc_core.results.identity import changed, model_key
from lrc_core.runs import integrity
from lrc_core.runs.records import Status
from lrc_core.runs.spec import AblationSpec, AllocateSpec, CompareSpec, ModelRef, QualitySpec, Spec, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard

S = TypeVar("S", bound=Spec)
Stamp = tuple[int, int]
S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True)
class RunView(Generic[S_co]):
    """One readable run, typed by what was asked for.

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
        """The folder's name."""
        return self.run.id

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run.path

    @property
    def kind(self) -> str:
        """The spec's kind."""
        return self.spec.kind

    @property
    def done(self) -> bool:
        """Whether it has finished well."""
        return self.status.state == "done"

    @property
    def final(self) -> bool:
        """Whether it has ended, however."""
        return self.status.final


AnyRun = RunView[Spec]
"""A run of whatever kind."""


def asks_for(view: AnyRun, kind: type[S]) -> TypeGuard[RunView[S]]:
    """Whether a run is of a kind."""
    return isinstance(view.spec, kind)


def same_model(one: ModelRef, other: ModelRef) -> bool:
    """Whether two references name the same weights; consents do not matter for that."""
    return (one.source, one.revision) == (other.source, other.revision)


@dataclass(frozen=True)
class Archive:
    """Stores of runs, looked through one after the other.

    Attributes:
        stores: the user's own first.
        shipped: folder of the one that holds the samples; None where there is none among them.
    """

    stores: tuple[RunStore, ...]
    shipped: Path | None = None

    @overload
    def runs(self, kind: None = None, ref: ModelRef | None = None, *, samples: bool = True) -> list[AnyRun]: ...
    @overload
    def runs(self, kind: type[S], ref: ModelRef | None = None, *, samples: bool = True) -> list[RunView[S]]: ...
    def runs(self, kind: type[Any] | None = None, ref: ModelRef | None = None, *, samples: bool = True) -> list[Any]:
        """Readable runs of a kind and a model (or of all), newest first, the user's own before the samples.

        Damaged folders are left out; :meth:`RunStore.list` has them.
        """
        return [
            view
            for store in self.stores
            if samples or store.root != self.shipped
            for view in _views(store, store.root == self.shipped)
            if (kind is None or isinstance(view.spec, kind)) and (ref is None or same_model(view.spec.model, ref))
        ]

    @overload
    def open(self, run_id: str, kind: None = None) -> AnyRun | None: ...
    @overload
    def open(self, run_id: str, kind: type[S]) -> RunView[S] | None: ...
    def open(self, run_id: str, kind: type[Any] | None = None) -> RunView[Any] | None:
        """A run by id; None when there is none of that kind that can be read.

        A finished one comes before one that is not: what was cancelled or has failed hides no sample of the same id.
        """
        views = list(self._by_id(run_id))
        view = next((view for view in views if view.done), views[0] if views else None)
        return view if view is not None and (kind is None or isinstance(view.spec, kind)) else None

    def job(self, run_id: str) -> AnyRun | None:
        """A run by id as a job: the user's own as it stands, finished or not; else a sample."""
        return next(self._by_id(run_id), None)

    def _by_id(self, run_id: str) -> Iterator[AnyRun]:
        for store in self.stores:
            try:
                run = store.open(run_id)
                yield RunView(run, run.spec, run.status(), store.root == self.shipped)
            except Exception:  # whatever is wrong with it: it is damaged
                continue

    def require(self, run_id: str, kind: type[S]) -> RunView[S]:
        """:meth:`open` where the run was there a moment ago.

        Raises:
            RunError: it has gone.
        """
        view = self.open(run_id, kind)
        if view is None:
            raise RunError(f"Run {run_id} is gone.", "It was deleted meanwhile; load the page again.")
        return view

    def folder(self, run_id: str) -> Run | None:
        """A run's folder by id, damaged or not, a finished one first; None when no store has it."""
        if (view := self.open(run_id)) is not None:
            return view.run
        for store in self.stores:
            try:
                return store.open(run_id)
            except LrcError:
                continue
        return None

    def named(self, text: str) -> Run:
        """A run by its folder, which may lie anywhere, or by its id as :meth:`folder` finds it.

        Raises:
            RunError: there is none.
        """
        path = expanded(text)
        if os.path.isfile(path / "spec.json"):
            return Run(path.resolve())
        return self.folder(text) or self.stores[0].open(text)

    def finished(self, kind: type[S], ref: ModelRef | None = None) -> list[RunView[S]]:
        """Runs that are done, every id once: a sample that the user has made again is the user's run."""
        done: dict[str, RunView[S]] = {}
        for view in self.runs(kind, ref):
            if view.done:
                done.setdefault(view.id, view)
        return list(done.values())

    def done_spectra(self, ref: ModelRef | None = None) -> list[RunView[SpectraSpec]]:
        """Finished spectra, the ones that are shown by themselves first.

        A run of what is on the disk now comes before one of what was there earlier; one that loaded the model knows
        more than one that streamed it, and comes before it.
        """
        looked: dict[str, str | None] = {}
        done = self.finished(SpectraSpec, ref)
        return sorted(done, key=lambda view: (bool(changed(view.spec, looked)), view.spec.stream))

    def best_spectra(self, ref: ModelRef) -> RunView[SpectraSpec] | None:
        """The run whose spectra are shown: the user's newest finished one, else a sample."""
        done = self.done_spectra(ref)
        return done[0] if done else None

    def with_cards(self, ref: ModelRef | None = None) -> Iterator[AnyRun]:
        """Runs that wrote a model card, as :meth:`runs` orders them."""
        return (view for view in self.runs(ref=ref) if (view.path / "card.json").is_file())

    def newest_card(self, ref: ModelRef) -> tuple[ModelCard, AnyRun] | None:
        """A card of this model; better of what is on the disk now than of what was there earlier, and better one of
        the loaded model than one of its headers.

        A damaged card is passed over.
        """
        found: dict[tuple[bool, bool], tuple[ModelCard, AnyRun]] = {}
        looked: dict[str, str | None] = {}
        for view in self.with_cards(ref):
            if isinstance(view.spec, SpectraSpec | AllocateSpec):
                try:
                    card = card_of(view)
                except RunError:
                    continue
                place = bool(changed(view.spec, looked)), card.identity.header_only
                if not any(place):
                    return card, view
                found.setdefault(place, (card, view))
        return found[min(found)] if found else None

    def loaded_card(self, spec: Spec) -> ModelCard | None:
        """The card of the model that a spec names, as it is now, where a run has loaded it.

        Args:
            spec: with the contents of what it names.
        """
        thing = model_key(spec.model)
        wanted = dict(spec.contents).get(thing, "")
        if not wanted and spec.model.source != "starter":
            return None
        for view in self.with_cards(spec.model):
            if dict(view.spec.contents).get(thing, "") != wanted:
                continue
            with suppress(RunError):
                if not (card := card_of(view)).identity.header_only:
                    return card
        return None

    def fetched(self, ref: ModelRef) -> bool:
        """Whether a job of the user's own has already brought this model in."""
        own = self.runs(ref=ref, samples=False)
        return any(view.done for view in own if not isinstance(view.spec, CompareSpec | QualitySpec | AblationSpec))


def archive() -> Archive:
    """The user's runs, then the shipped samples; in the read-only mode there are samples alone."""
    samples = RunStore(samples_home())
    return Archive((samples,) if read_only() else (RunStore(), samples), samples.root)


def _views(store: RunStore, sample: bool) -> list[AnyRun]:
    """Newest first, without damaged folders."""
    return [
        RunView(Run(summary.path), summary.spec, summary.status, sample)
        for summary in store.list()
        if summary.spec is not None and summary.status is not None
    ]


@lru_cache(maxsize=64)
def _text(path: str, stamp: Stamp) -> str:
    return Path(path).read_text(encoding="utf-8")


def read_content(path: Path) -> Any:
    """A JSON file of a run folder, whose text is kept until it changes; whoever asks gets a content of their own.

    Raises:
        RecordError: missing, damaged, or not the file that the run has finished with.
    """
    integrity.unaltered(path)
    try:
        return parse(_text(str(path), stamp_of(path)), str(path))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing.", "Delete the run on the Runs page and start it again.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}.", "Delete the run and start it again.") from error


def recorded_rows(view: AnyRun) -> list[Any]:
    """The rows of a comparison or bench that are there by now, also while it works.

    Raises:
        RunError: they are damaged.
    """
    path = view.path / "rows.json"
    content = read_content(path) if path.is_file() else (view.run.result() or {}).get("rows")
    return content if isinstance(content, list) else []


def card_of(view: AnyRun) -> ModelCard:
    """The model card that a run wrote.

    Raises:
        RunError: missing or damaged.
    """
    path = view.path / "card.json"
    integrity.unaltered(path)
    return _card(str(path), stamp_of(path))


@lru_cache(maxsize=64)
def _card(path: str, stamp: Stamp) -> ModelCard:
    """Shared by everyone who asks: pages keep it as long as their visitor may come back."""
    return ModelCard.from_dict(read_content(Path(path)), path)
