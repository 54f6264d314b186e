"""Flags of the command line, each said once: how it is read into a spec, and how a spec is written as words again.

A command is a row of parts. Reading begins with the default spec and lets every part put in what the user said;
writing begins with the same spec and lets every part say what still differs. So what is written reads back.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - both register their methods, which help texts list
from lrc_core.errors import EvaluationError, SettingsError, TextError
from lrc_core.formats.grids import format_named
from lrc_core.kinds.words.lists import add_list, pieces_of
from lrc_core.models.onload.choice import MODES
from lrc_core.models.pack.starter import TEXTS
from lrc_core.paths import expanded
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.spec import GENERATED, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.texts.documents import is_data_set
from lrc_core.texts.files import absolute, is_file, split_field

STARTER = "starter"
ENGINES = ("local", "slurm", "ray")
_BUILT_IN = (*TEXTS, "gensim", GENERATED)


class SpecFlags(Protocol):
    """What a command has to say about some fields of its spec."""

    def add(self, parser: argparse.ArgumentParser, base: Any) -> None:
        """Add the flags; ``base`` is the default spec."""

    def read(self, spec: Any, arguments: argparse.Namespace, store: RunStore) -> Any:
        """The spec with what the user said."""

    def write(self, spec: Any, said: Any, store: RunStore) -> tuple[list[str], Any]:
        """Words for what differs, and what has been said with them."""


@dataclass(frozen=True)
class Flag:
    """One flag for one field.

    Attributes:
        word: the flag as it is written.
        field: of the spec; ``calibration.windows`` for a field of a part.
        help: what it is; the default is added.
        type: of one value; refused by the parser where it does not fit.
        choices: allowed values.
        metavar: what stands for a value in the help.
        const: the value that the flag sets without a word of its own.
        aliases: other ways to write it.
        old: former words: they still work, with a note.
        many: takes several values, with spaces or commas between them.
        each: several values, and the flag may be repeated.
        none: several values, or none at all.
        fits: whether a word after the first can be a value; if not, it names the model.
        made: makes the field's value of a word; may raise an error of its own.
        also: fields that get the same value unless their own flags say otherwise.
        then: fields that get another value with it.
        always: written even where it is the default.
        unless: field of the spec; where that is true, this flag says nothing.
    """

    word: str
    field: str
    help: str
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    const: Any = None
    aliases: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    many: bool = False
    each: bool = False
    none: bool = False
    fits: Callable[[str], bool] | None = None
    made: Callable[[str], Any] | None = None
    also: tuple[str, ...] = ()
    then: tuple[tuple[str, Any], ...] = ()
    always: bool = False
    unless: str = ""

    def add(self, parser: argparse.ArgumentParser, base: Any) -> None:
        """See :class:`SpecFlags`."""
        words = (self.word, *self.aliases)
        text = self._help(base).replace("%", "%%")
        if self.const is not None:
            parser.add_argument(*words, dest=self.field, action="store_const", const=self.const, help=text)
        elif self.many or self.each:
            add_list(parser, words, self.field, text, **self._of_a_list())
            for old in self.old:
                add_list(parser, (old,), self.field, argparse.SUPPRESS, instead=self.word, **self._of_a_list())
        else:
            parser.add_argument(
                *words,
                dest=self.field,
                type=self.type,
                choices=self.choices or None,
                metavar=self.metavar or (None if self.choices else self.field.split(".")[-1].upper()),
                help=text,
            )

    def _of_a_list(self) -> dict[str, Any]:
        return {
            "of": self.type,
            "among": self.choices,
            "extend": self.each,
            "fits": self.fits,
            "metavar": self.metavar or self.word.lstrip("-").upper(),
            "nargs": "*" if self.none else "+",
        }

    def _help(self, base: Any) -> str:
        default = get(base, self.field)
        if self.const is not None or "default" in self.help or default in ((), ""):
            return self.help
        return f"{self.help} (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"

    def read(self, spec: Any, arguments: argparse.Namespace, store: RunStore) -> Any:
        """See :class:`SpecFlags`."""
        given = getattr(arguments, self.field)
        if given is None or self._silent(spec):
            return spec
        if self.made is not None:
            given = [self.made(word) for word in given] if isinstance(given, list) else self.made(given)
        return self._said(spec, tuple(given) if isinstance(given, list) else given)

    def write(self, spec: Any, said: Any, store: RunStore) -> tuple[list[str], Any]:
        """See :class:`SpecFlags`."""
        value = get(spec, self.field)
        if self._silent(spec) or (value == get(said, self.field) and not self.always):
            return [], said
        return self._words(value), self._said(said, value)

    def _silent(self, spec: Any) -> bool:
        return bool(self.unless) and bool(get(spec, self.unless))

    def _said(self, spec: Any, value: Any) -> Any:
        for name in (self.field, *self.also):
            spec = put(spec, name, value)
        for name, other in self.then:
            spec = put(spec, name, other)
        return spec

    def _words(self, value: Any) -> list[str]:
        if self.const is not None:
            return [self.word] if value == self.const else []
        if self.each:
            return [word for one in value for word in (self.word, str(one))]
        if self.many:
            return [self.word, *(str(one) for one in value)]
        text = str(value)
        return [f"{self.word}={text}"] if text.startswith("-") else [self.word, text]


def get(spec: Any, name: str) -> Any:
    """The value of a field, or of a field of a part."""
    for part in name.split("."):
        spec = getattr(spec, part)
    return spec


def put(spec: Any, name: str, value: Any) -> Any:
    """The spec with another value of that field."""
    first, _, rest = name.partition(".")
    return replace(spec, **{first: put(getattr(spec, first), rest, value) if rest else value})


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model, and what the user consents to."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="starter, hub id, folder or GGUF")
    parser.add_argument("--model", dest="named_model", metavar="MODEL", help="the same, after options")
    parser.add_argument("--revision", default="", help="hub revision")
    parser.add_argument("--trust-remote-code", action="store_true", help="consent to run the model's own code")
    parser.add_argument("--allow-pickle", action="store_true", help="consent to weights that are not safetensors")


def model_ref(arguments: argparse.Namespace) -> ModelRef:
    """The model; a local folder or file by its absolute path, so that the worker finds it.

    Raises:
        SettingsError: two are named.
    """
    named = {model_source(name) for name in (arguments.model, arguments.named_model) if name}
    if len(named) > 1:
        raise SettingsError(
            f"Two models are named: {arguments.model} and {arguments.named_model}.", "Name one of them."
        )
    source = named.pop() if named else STARTER
    return ModelRef(source, arguments.revision, arguments.trust_remote_code, arguments.allow_pickle)


def model_source(name: str) -> str:
    """A model as the worker finds it: a local folder or file by its absolute path."""
    path = expanded(name)
    return os.path.abspath(path) if name != STARTER and os.path.exists(path) else name


def model_words(model: ModelRef) -> list[str]:
    """The words that name a model."""
    return [
        model.source,
        *(["--revision", model.revision] if model.revision else []),
        *(["--trust-remote-code"] if model.trust_remote_code else []),
        *(["--allow-pickle"] if model.allow_pickle else []),
    ]


def add_job(parser: argparse.ArgumentParser) -> None:
    """What can be set for every job."""
    parser.add_argument("--detach", action="store_true", help="print the run's id at once and let it work")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped or failed")
    add_engine(parser)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Where a job is done, and with what."""
    words = "this machine, or a cluster (default: the profile's, else local); docs/cluster.md"
    parser.add_argument("--on", choices=ENGINES, default="", help=words)
    parser.add_argument("--profile", default="", metavar="FILE", help="TOML: what a job asks of the cluster")


def add_onload(parser: argparse.ArgumentParser) -> None:
    """How the model is held: no part of the spec, because results are the same."""
    parser.add_argument(
        "--onload",
        choices=MODES,
        default=MODES[0],
        help="bring the model in block after block: always, never, or where memory does not suffice (default: auto)",
    )


def absolute_text(name: str) -> str:
    """Built-in names as they are, files by absolute path with the field where one is named, hub data sets as they are.

    Raises:
        TextError: it is none of them.
    """
    if name in _BUILT_IN:
        return name
    if is_file(name):
        return absolute(name)
    path, field = split_field(name)
    folder = os.path.isdir(path)
    if folder or path.is_absolute() or name.startswith((".", "~")) or not is_data_set(name):
        what = f"{path} is a folder." if folder else f"There is no text {str(path) if field else name!r}."
        raise TextError(
            what,
            f"Name a file (FILE#field=NAME for a field other than text), a hub data set (owner/name), or one of "
            f"{', '.join(_BUILT_IN)}.",
        )
    return name


def _is_text(word: str) -> bool:
    """Whether a word names texts for certain; a hub data set cannot be distinguished from a model."""
    paths = [(piece, expanded(piece)) for piece in pieces_of(word)]
    return all(piece in _BUILT_IN or (is_file(piece) and path.suffix != ".gguf") for piece, path in paths)


def _folder(name: str) -> str:
    path = expanded(name)
    if not os.path.isdir(path):
        raise EvaluationError(f"There is no folder {name} of task files.", "Give --include-path a folder.")
    return os.path.abspath(path)


_NAMES: dict[str, dict[str, Any]] = {
    "text": {"each": True, "fits": _is_text, "made": absolute_text, "metavar": "TEXT"},
    "listed text": {"made": absolute_text, "metavar": "TEXT"},
    "folder": {"made": _folder, "metavar": "DIR"},
    "new folder": {"made": lambda name: os.path.abspath(expanded(name))},
    "model": {"made": model_source, "metavar": "MODEL"},
    "format": {"made": lambda name: format_named(name).name, "metavar": "FORMAT"},
    "decomposition": {"help": ", ".join(DECOMPOSITIONS.names()), "metavar": "D"},
}
"""What a word of the command line can name."""


def flag(spec: type[Any], name: str, **more: Any) -> Flag:
    """The flag of a field, as :func:`~lrc_core.runs.spec_parts.argument` put it beside the field.

    Args:
        name: the field, or ``calibration.windows`` for a field of a part.
        more: what is different in this command.
    """
    owner, leaf = spec, name
    if "." in name:
        part, leaf = name.split(".")
        owner = _types_of(spec)[part]
    info = next(known for known in fields(owner) if known.name == leaf)
    said = {"word": f"--{leaf.replace('_', '-')}", **info.metadata, **more}
    said |= _NAMES.get(said.pop("names", ""), {})
    if leaf == "seed" and owner is not spec and hasattr(spec, "seed"):
        said["help"] += " (default: the seed)"
    kind = _types_of(owner)[leaf]
    if kind is bool:
        return Flag(field=name, const=not info.default, **said)
    several = get_args(kind)[:1] if get_origin(kind) is tuple else ()
    kind = several[0] if several else kind
    kind = str if get_origin(kind) is Literal else kind
    if "choices" not in said:
        said.setdefault("metavar", {int: "N", float: "SHARE"}.get(kind))
    return Flag(field=name, type=kind, many=bool(several) and not said.get("each"), **said)


def _types_of(record: type[Any]) -> dict[str, Any]:
    found: Any = record  # hashable, which mypy does not see of a type of anything
    return _hints(found)


_hints = cache(get_type_hints)
CALIBRATION_SEED = "--calibration-seed"
"""Where ``--seed`` is not, or not only, that of the calibration."""


def flags(spec: type[Any], *names: str) -> tuple[Flag, ...]:
    """The flags of several fields that this command asks for as they are."""
    return tuple(flag(spec, name) for name in names)


def calibration(spec: type[Any], *, alone: bool = False, seed: str = "", unless: str = "") -> tuple[Flag, ...]:
    """Calibration text and windows.

    Args:
        alone: the command has no other text and no other windows, so that ``--text`` once meant this one.
        seed: the flag of the seed that chooses windows; "" for none.
        unless: field of the spec that makes calibration pointless.
    """
    old: dict[str, Any] = {"old": ("--text",)} if alone else {}
    most: dict[str, Any] = {"aliases": ("--max-windows",)} if alone else {}
    window: dict[str, Any] = {"aliases": ("--calibration-window",)} if alone else {"word": "--calibration-window"}
    return (
        flag(spec, "calibration.texts", unless=unless, **old),
        flag(spec, "calibration.windows", unless=unless, **most),
        flag(spec, "calibration.window", unless=unless, **window),
        *((flag(spec, "calibration.seed", word=seed, unless=unless),) if seed else ()),
    )


def evaluation(spec: type[Any], *old: str, seed: str = "--evaluation-seed") -> tuple[Flag, ...]:
    """What is measured.

    Args:
        old: former words for the texts.
    """
    names = ("window", "max_windows", "stride", "bos", "tasks", "items", "include_path")
    return (
        flag(spec, "evaluation.texts", old=old),
        *flags(spec, *(f"evaluation.{name}" for name in names)),
        flag(spec, "evaluation.seed", word=seed),
    )
