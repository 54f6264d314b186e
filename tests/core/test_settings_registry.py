"""Settings from words, and methods by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pytest

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401  both packages register their methods
from lrc_core.errors import SettingsError, UnknownNameError
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry, Registry
from lrc_core.settings import build, fields_of, setting


@dataclass(frozen=True)
class Example:
    count: int = setting(3, "Count", "How many.", minimum=1, maximum=10)
    share: float = setting(0.5, "Share", "How much.", minimum=0, maximum=1)
    kind: str = setting("a", "Kind", "Which.", choices=("a", "b"))
    on: bool = setting(False, "On", "Whether.")


def test_words_become_values() -> None:
    built = build(Example, {"count": "7", "share": "1", "kind": "b", "on": "yes"})
    assert built == Example(7, 1.0, "b", True)
    assert build(Example, {}) == Example()
    assert build(Example, {"count": 7.0, "on": False}) == Example(count=7)
    assert build(Example, asdict(built)) == built


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"coumt": 1}, "mean 'count'"),
        ({"xyzzy": 1}, "count, share, kind, on"),
        ({"count": "many"}, "'count' needs int"),
        ({"count": 2.5}, "'count' needs int"),
        ({"count": 11}, "from 1 to 10"),
        ({"count": 0}, "from 1 to 10"),
        ({"share": float("nan")}, "'share' is nan"),
        ({"share": "inf"}, "'share' is inf"),
        ({"share": None}, "'share' needs float"),
        ({"kind": "c"}, "one of a, b"),
        ({"on": "perhaps"}, "'on' needs bool"),
    ],
)
def test_bad_settings_say_what_is_allowed(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build(Example, values)


def test_fields_carry_what_a_form_shows() -> None:
    count, _, kind, on = fields_of(Example)
    assert (count.label, count.type, count.default, count.minimum, count.maximum) == ("Count", int, 3, 1, 10)
    assert kind.choices == ("a", "b")
    assert on.type is bool


def entry(name: str, color: str = "#000000") -> MethodEntry:
    presets = {"quick": {"count": 2}, "slow": {}}
    return MethodEntry(name, name.title(), "", "", color, "math:sqrt", Example, presets)


def test_names_are_taken_once_and_suggested() -> None:
    registry: Registry[MethodEntry] = Registry("method")
    registry.register(entry("uniform"))
    registry.register(entry("strs", "#0000ff"))
    assert registry.names() == ("uniform", "strs")
    assert [found.name for found in registry] == ["uniform", "strs"]
    assert "strs" in registry
    with pytest.raises(ValueError, match=r"'strs'.*twice"):
        registry.register(entry("strs"))
    with pytest.raises(UnknownNameError, match=r"'unifrom'.* uniform"):
        registry.get("unifrom")
    with pytest.raises(UnknownNameError, match="Known: uniform, strs"):
        registry.get("q")


def test_a_colour_is_taken_once() -> None:
    registry: Registry[MethodEntry] = Registry("method")
    registry.register(entry("uniform", "#00ff00"))
    with pytest.raises(ValueError, match=r"'strs'.* #00FF00 .*'uniform'"):
        registry.register(entry("strs", "#00FF00"))


def test_presets_and_single_values() -> None:
    method = entry("x")
    assert method.settings("quick") == Example(count=2)
    assert method.settings("quick", {"count": "4", "on": True}) == Example(count=4, on=True)
    assert method.settings() == Example()
    with pytest.raises(SettingsError, match=r"'fast'.* quick, slow"):
        method.settings("fast")
    assert method.load()(9) == 3


@pytest.mark.parametrize("method", [*ALLOCATORS, *DECOMPOSITIONS], ids=lambda method: method.name)
def test_every_method_is_told_to_its_user(method: MethodEntry) -> None:
    assert method.label
    assert method.summary.endswith(".")
    assert method.source
    assert len(method.color) == 7
    assert method.color.startswith("#")
    for preset in method.presets:
        settings = method.settings(preset)
        assert method.settings(None, asdict(settings)) == settings
    for field in fields_of(method.settings_class):
        assert field.label
        assert field.help.endswith(".")
        assert method.settings(None, {field.name: field.default}) is not None


def test_paper_is_the_published_recipe() -> None:
    paper = ALLOCATORS.get("llrc").settings("paper")
    assert paper == ALLOCATORS.get("llrc").settings()
    published = (paper.temperature, paper.ramp_high, paper.ramp_low, paper.learning_rate, paper.settle_steps)
    assert published == (0.1, 6.0, 3.0, 0.01, 750)
    data = (paper.documents, paper.window, paper.batch, paper.distillation, paper.compression, paper.tolerance)
    assert data == (3000, 256, 4, "hidden", "mean_logit", 0.002)
    strs = ALLOCATORS.get("strs").settings("paper")
    assert (strs.windows, strs.window, strs.lowest, strs.highest, strs.step) == (32, 2048, 0.4, 0.9, 0.1)
