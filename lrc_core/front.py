"""The ten names of the Python interface as attributes of ``lrc_core``, loaded when one is first used.

Some of them are also packages of ours: ``lrc_core.allocate`` holds the methods, and ``lrc_core.allocate(model)`` is the
function. Python binds a package to that name as soon as anything in it is imported, so the package itself is called.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

NAMES = ("load", "spectra", "allocate", "evaluate", "compare", "apply", "export", "plan", "runs", "plot")
PACKAGES = ("allocate", "evaluate", "plan", "runs")
"""Those that are packages or modules as well."""


def function(name: str) -> Callable[..., Any]:
    """One of the ten."""
    found: Callable[..., Any] = getattr(import_module(f"lrc_core.api.{name}"), name)
    return found


class CallablePackage(ModuleType):
    """A package whose name is also a function's."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function of that name."""
        return self._function()(*arguments, **options)

    def _function(self) -> Callable[..., Any]:
        return function(self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        """Of the function: what a notebook shows of a call."""
        return inspect.signature(self._function())


def callable_package(name: str) -> None:
    """Make a package that is being imported callable.

    Args:
        name: its ``__name__``.
    """
    sys.modules[name].__class__ = CallablePackage
