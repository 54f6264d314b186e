"""Low-rank compression of causal language models: decompose, allocate ranks, evaluate, export.

In a program or a notebook::

    import lrc_core as lrc

    model = lrc.load("starter")
    plan = lrc.allocate(model, "lagrangian", keep=0.8)
    lrc.evaluate(model, plan)

The names are those of :data:`lrc_core.front.NAMES`; :mod:`lrc_core.api` describes them. Importing this loads nothing.

Imports go downward only, floor by floor (see docs/architecture.md); a test enforces it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    front = import_module("lrc_core.front")
    if name in front.PACKAGES:
        return import_module(f"lrc_core.{name}")
    if name in front.NAMES:
        return front.function(name)
    raise AttributeError(f"module 'lrc_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *import_module("lrc_core.front").NAMES]
