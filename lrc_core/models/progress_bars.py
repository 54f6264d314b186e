"""Keeping transformers' progress bars off the screen and turning them into progress ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from lrc_core.errors import CancelledError
from lrc_core.types import OnProgress, Progress, ShouldStop


class TickBar:
    """Stands in for a tqdm bar: draws nothing, reports every step, and stops the work when asked to.

    Args:
        phase: what the ticks say.
        on_progress: receives them.
    """

    def __init__(self, phase: str, on_progress: OnProgress, should_stop: ShouldStop, *args: Any, **kwargs: Any) -> None:
        self._phase = phase
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._iterable = args[0] if args else kwargs.get("iterable")
        self.n = 0
        self.format_dict: dict[str, Any] = {}
        total = kwargs.get("total")
        if total is None and isinstance(self._iterable, Sized):
            total = len(self._iterable)
        self.total = total or 0

    def update(self, n: float | None = 1) -> None:
        """Count ``n`` more steps."""
        self.n += int(n or 0)
        self._on_progress(Progress(self._phase, self.n, int(self.total)))
        if self._should_stop():
            raise CancelledError(f"Stopped while {self._phase}.")

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable or ():
            yield item
            self.update()

    def __enter__(self) -> TickBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        """Every other method of a bar (close, refresh, set_description, ...) does nothing."""
        return lambda *args, **kwargs: None


@contextmanager
def quiet_transformers(phase: str, on_progress: OnProgress, should_stop: ShouldStop) -> Iterator[None]:
    """Within the block transformers reports through ``on_progress`` instead of drawing bars on the screen."""
    from transformers.utils import logging as transformers_logging

    def bar(*args: Any, **kwargs: Any) -> TickBar:
        return TickBar(phase, on_progress, should_stop, *args, **kwargs)

    was_enabled = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.set_tqdm_hook(lambda _, args, kwargs: bar(*args, **kwargs))
    try:
        with _gguf_bar(bar):
            yield
    finally:
        transformers_logging.set_tqdm_hook(None)
        transformers_logging.set_verbosity(verbosity)
        if was_enabled:
            transformers_logging.enable_progress_bar()


@contextmanager
def _gguf_bar(bar: Callable[..., TickBar]) -> Iterator[None]:
    """The unpacking of GGUF files draws with tqdm itself, past transformers' hook."""
    from transformers import modeling_gguf_pytorch_utils as unpacking

    drawn = getattr(unpacking, "tqdm", None)
    unpacking.tqdm = bar
    try:
        yield
    finally:
        unpacking.tqdm = drawn
