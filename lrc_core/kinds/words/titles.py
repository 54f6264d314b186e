"""Words that titles of several kinds share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lrc_core.formats.grids import METHODS
from lrc_core.names import method_label
from lrc_core.plan import storage_of, update_of, variant_name
from lrc_core.words import removed


def sizes(keeps: Iterable[float]) -> str:
    """``20 %, 30 %``."""
    return ", ".join(removed(keep) for keep in keeps)


def plan_title(plan: Mapping[str, Any]) -> str:
    """``LLRC + update at 20 %``; a number format alone removes nothing and has no rate."""
    name = method_label(variant_name(str(plan.get("method")), update_of(plan.get("origin")), storage_of(plan)))
    return name if plan.get("method") in METHODS else f"{name} at {removed(float(plan.get('keep_target', 1)))}"


def listed(name: str, *keeps: float) -> str:
    """``llrc, keep 0.8``: as the command line has it, in its own words."""
    return f"{name}, keep {' '.join(f'{keep:.4g}' for keep in keeps)}"


def listed_plan(plan: Mapping[str, Any], update: str) -> str:
    """The same of a plan; a number format alone keeps every value and is listed by its name."""
    name = variant_name(str(plan.get("method")), update, storage_of(plan))
    return name if plan.get("method") in METHODS else listed(name, float(plan.get("keep_target", 1)))
