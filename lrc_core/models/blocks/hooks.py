"""Hooks on modules that are there for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of a with-block, or as soon as one of them cannot be registered.

    Args:
        handles: what registering them returns; registered here where this is a generator.
    """
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
