"""Every registered kind of update can be named, asked for, drawn and started."""

from __future__ import annotations

import pytest

from lrc_core.kinds.checks import needs_whole
from lrc_core.names import in_order, method_label
from lrc_core.registry import UpdateEntry, load
from lrc_core.runs.spec import UpdateSpec
from lrc_core.updates import COMPARED, KINDS, UPDATES, update_settings


@pytest.mark.parametrize("entry", [UPDATES.get(name) for name in KINDS], ids=KINDS)
def test_a_kind_has_all_that_a_run_of_it_needs(entry: UpdateEntry) -> None:
    settings = update_settings({"kind": entry.name})
    assert isinstance(settings, entry.settings_class) and settings.kind == entry.name
    assert callable(load(entry.stage))
    assert entry.suffix and entry.title and entry.summary.endswith(".")
    assert needs_whole(UpdateSpec(settings={"kind": entry.name})) == entry.whole


@pytest.mark.parametrize("name", COMPARED)
def test_what_can_be_compared_is_told_apart(name: str) -> None:
    entry = UPDATES.get(name)
    assert entry.label and entry.compared and entry.report.endswith(".")
    assert set(name.split("+")) <= set(KINDS)


def test_plans_stand_in_the_order_of_registration_behind_what_was_allocated() -> None:
    names = [f"uniform+{name}" for name in COMPARED]
    assert in_order([*reversed(names), "uniform"]) == ["uniform", *names]
    assert len(set(map(method_label, names))) == len(names)


@pytest.mark.parametrize("part", ["pattern", "dash", "symbol"])
def test_no_two_look_alike(part: str) -> None:
    assert len({getattr(entry.look, part) for entry in UPDATES}) == len(COMPARED)
