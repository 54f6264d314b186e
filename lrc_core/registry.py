"""Explicit registration of methods. Entries are torch-free; implementations load when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from types import NoneType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from lrc_core.errors import SettingsError, UnknownNameError
from lrc_core.settings import build
from lrc_core.types import Storage


class Entry(Protocol):
    """What can be registered: anything with a name."""

    @property
    def name(self) -> str:
        """The name users type."""


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Names to entries, in order of registration.

    Args:
        noun: what is registered, for error messages ("allocator").
        apart: the attribute by which charts tell entries apart; no two may share its value.
    """

    def __init__(self, noun: str, apart: str = "color") -> None:
        self._noun, self._apart = noun, apart
        self._entries: dict[str, E] = {}

    def register(self, entry: E) -> E:
        """Add an entry.

        Raises:
            ValueError: the name or the look is taken (a programming error, not a user's).
        """
        if entry.name in self._entries:
            raise ValueError(f"{self._noun} {entry.name!r} is registered twice")
        look = getattr(entry, self._apart)
        for other in self:
            if str(getattr(other, self._apart)).lower() == str(look).lower():
                raise ValueError(
                    f"{self._noun} {entry.name!r} has the {self._apart} {look} of {other.name!r}: choose another one"
                )
        self._entries[entry.name] = entry
        return entry

    def get(self, name: str) -> E:
        """The entry of that name.

        Raises:
            UnknownNameError: with the closest known names.
        """
        if name not in self._entries:
            close = get_close_matches(name, self._entries, n=2)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(self._entries)}."
            raise UnknownNameError(f"There is no {self._noun} {name!r}.", hint)
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names, in order of registration."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def load(path: str) -> Callable[..., Any]:
    """The function behind ``package.module:function``, imported now."""
    module, function = path.split(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


REPORTED = ("loss", "keep", "target", "entropy", "tokens_per_s", "memory_mb")
"""Figures that every method that learns gives at every step; a method's own come on top."""


@dataclass(frozen=True)
class Term:
    """One term of a loss, or a part of a method that holds its budget at every step.

    Attributes:
        off: settings that switch it off.
        on: settings that switch it on where a preset has it off, so that "all terms" means all.
        presses: whether it is what drives the kept share down to the target.
    """

    off: Mapping[str, Any]
    on: Mapping[str, Any] = field(default_factory=dict)
    presses: bool = False


@dataclass(frozen=True)
class MethodEntry:
    """A decomposition or an allocator as users meet it.

    Attributes:
        name: what the command line and the run record say.
        label: what the app shows.
        summary: one plain sentence.
        source: paper and equation.
        color: the one colour this method has in every chart (hex).
        implementation: ``"package.module:function"``, imported when first called.
        settings_class: flat frozen dataclass of settings.
        presets: named overrides of the settings' defaults.
        learns: whether it trains masks (has a live view, a path of recorded plans, and resumes).
        structured: whether it prunes whole heads and channels instead of choosing ranks; it needs no factors.
        arithmetic: whether ranks follow from the shapes and the target alone: no text is read and nothing decomposed.
        tiny: overrides of the first preset that make it quick on a model of a few thousand parameters; for tests.
        terms: of its loss, by name, which an ablation switches off one at a time.
        reports: figures of a training step beyond :data:`REPORTED`.
        by_bytes: whether it can share out a budget in bytes, and choose number formats.
        layer_local: decompositions on which it never runs the model as a whole, so that one larger than memory will do.
        version: of its code; to be raised when the same settings would come to other numbers.
        versions: the same where only layers stored by some law come to other numbers, by law.
    """

    name: str
    label: str
    summary: str
    source: str
    color: str
    implementation: str
    settings_class: type
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"quick": {}})
    learns: bool = False
    structured: bool = False
    arithmetic: bool = False
    tiny: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Term] = field(default_factory=dict)
    reports: tuple[str, ...] = ()
    by_bytes: bool = False
    layer_local: tuple[str, ...] = ()
    version: int = 1
    versions: Mapping[str, int] = field(default_factory=dict)

    def version_for(self, storage: str) -> int:
        """Version of its code where layers are stored by a law."""
        return self.versions.get(storage, self.version)

    def load(self) -> Any:
        """Import and return the implementing function."""
        return load(self.implementation)

    def storage(self, wanted: Storage) -> Storage:
        """The law by which layers of its plans are stored: what prunes structure makes no factors, and knows pairs."""
        return "pair" if self.structured else wanted

    def settings(self, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Any:
        """Settings of a preset with single values overridden.

        Raises:
            SettingsError: unknown preset, unknown key or bad value.
        """
        if preset is not None and preset not in self.presets:
            raise SettingsError(f"{self.label} has no preset {preset!r}.", f"Choose one of {', '.join(self.presets)}.")
        return build(self.settings_class, {**(self.presets[preset] if preset else {}), **(overrides or {})})


@dataclass(frozen=True)
class DecompositionEntry(MethodEntry):
    """A decomposition, with what it has to know besides the weights.

    Attributes:
        statistics: "none", "inputs" (second moments of the layer's inputs) or "gradients" (those of the gradients at
            its outputs as well).
        loss_in_nats: whether half of sigma^2 is what dropping a component costs the model, comparable between layers.
    """

    statistics: str = "inputs"
    loss_in_nats: bool = False


class Appearance(NamedTuple):
    """What tells bars, lines and points apart that have the same colour, in the words of Plotly."""

    pattern: str
    dash: str
    symbol: str


@dataclass(frozen=True)
class UpdateEntry:
    """What can be done to a plan's factors at fixed ranks; or several such, one after the other.

    Attributes:
        name: what the command line and the run record say; of several, their names joined by ``+``.
        label: what the app shows.
        compared: plans that have it are plans "with ...".
        report: what a report says of such plans, one sentence.
        look: of its plans in charts.
        suffix: what stands behind a method's name and a plus.
        title: of a run that does it.
        summary: one plain sentence.
        settings_class: flat frozen dataclass of settings, ``kind`` among them.
        stage: ``"package.module:function"``, ``(run, session, plan, settings) -> FoundFactors``; loads torch.
        trains: whether it goes on from whatever factors it is given, instead of fitting new ones.
        whole: what it does, where that needs the whole model in memory.
    """

    name: str
    label: str
    compared: str
    report: str
    look: Appearance
    suffix: str = ""
    title: str = ""
    summary: str = ""
    settings_class: type = NoneType
    stage: str = ""
    trains: bool = False
    whole: str = ""


DECOMPOSITIONS: Registry[DecompositionEntry] = Registry("decomposition")
ALLOCATORS: Registry[MethodEntry] = Registry("method")
