"""``runs``: what was computed, here, in the app or on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from lrc_core.api.allocate import chosen_by
from lrc_core.api.compare import ComparedMethods
from lrc_core.api.evaluate import Evaluation
from lrc_core.api.export import ExportedFolder
from lrc_core.api.shown import rows_html
from lrc_core.api.spectra import LayerSpectra
from lrc_core.errors import RunError
from lrc_core.kinds import title_of
from lrc_core.results.archive import AnyRun, archive
from lrc_core.runs.spec import AllocateSpec, CompareSpec, EvaluateSpec, ExportSpec, SpectraSpec, UpdateSpec
from lrc_core.words import ago, aligned


class RunTable(Sequence[AnyRun]):
    """Runs, newest first; each has ``id``, ``kind``, ``spec``, ``status`` and ``path``."""

    def __init__(self, views: Sequence[AnyRun]) -> None:
        self._views = list(views)

    def __len__(self) -> int:
        return len(self._views)

    @overload
    def __getitem__(self, place: int) -> AnyRun: ...
    @overload
    def __getitem__(self, place: slice) -> list[AnyRun]: ...
    def __getitem__(self, place: int | slice) -> AnyRun | list[AnyRun]:
        """By place."""
        return self._views[place]

    def __iter__(self) -> Iterator[AnyRun]:
        return iter(self._views)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [view.id, title_of(view.spec), view.spec.model.source, view.status.state,
             "sample" if view.sample else ago(view.status.created_at)]
            for view in self._views
        ]  # fmt: skip
        return ["run", "what", "model", "state", "asked for"], rows

    def __repr__(self) -> str:
        return aligned(*self._table()) if self._views else "No runs yet."

    def _repr_html_(self) -> str:
        return rows_html(*self._table())


_RESULTS: dict[type[Any], Any] = {
    AllocateSpec: chosen_by,
    UpdateSpec: chosen_by,
    SpectraSpec: LayerSpectra,
    EvaluateSpec: Evaluation,
    CompareSpec: ComparedMethods,
    ExportSpec: ExportedFolder,
}


def runs(run: str = "", *, samples: bool = True) -> Any:
    """All runs, or the result of one.

    Args:
        run: an id; "" for a list of all.
        samples: list the shipped ones as well.

    Returns:
        A list, newest first; of one run what the function gives that starts such runs, or its record where none does.

    Raises:
        RunError: there is no such run, or it is not done.
    """
    if not run:
        return RunTable(archive().runs(samples=samples))
    view = archive().open(run)
    if view is None:
        raise RunError(f"There is no run {run!r}.", "`runs()` lists them.")
    if not view.done:
        raise RunError(f"Run {run} is {view.status.state}.", f"See `lrc runs show {run}`.")
    return _RESULTS.get(type(view.spec), lambda found: found)(view)
