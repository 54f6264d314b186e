"""What the program knows of a kind of run, in one record."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lrc_core.kinds import checks
from lrc_core.kinds.words.flags import SpecFlags, add_job, add_model, add_onload, model_ref, model_words
from lrc_core.runs.store import RunStore


def _nothing(_: Any) -> None:
    """Nothing is asked of this kind alone."""


def _no_words(_: Any) -> str:
    return ""


def _own_model(spec: Any) -> None:
    checks.check_model(spec.model, checks.windows_of(spec), checks.needs_whole(spec))


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        base: the spec of the command without a word.
        label: what the app calls it.
        help: one line of ``lrc --help``.
        stage: ``package.module:function`` that does the work, ``(run, session) -> result``; loads torch.
        show: ``package.module:function`` that prints the result, ``(run, result)``.
        parts: flags of its command.
        first: parts whose words stand before the model's.
        extras: adds flags that are no part of the spec.
        command: words of its command; its name where there are none.
        handler: ``package.module:function`` of the command.
        title: what a run of it does, in a few words; the label where there is nothing to add.
        what: the same for a list of runs.
        check: refuses a spec that cannot succeed.
        check_models: looks at the headers of the models.
        page: where the app shows what came of a run, with ``{id}`` in the place of the run's.
        light: it needs no device and does not wait for one.
    """

    base: Any
    label: str
    help: str
    stage: str
    show: str
    page: str
    parts: tuple[SpecFlags, ...] = ()
    first: tuple[SpecFlags, ...] = ()
    extras: Callable[[argparse.ArgumentParser], None] = _nothing
    command: tuple[str, ...] = ()
    handler: str = "lrc_core.cli.jobs:job"
    title: Callable[[Any], str] = _no_words
    what: Callable[[Any], str] = _no_words
    check: Callable[[Any], None] = _nothing
    check_models: Callable[[Any], None] = _own_model
    light: bool = False

    @property
    def name(self) -> str:
        """As specs say it."""
        return str(self.base.kind)

    @property
    def spec_class(self) -> type[Any]:
        """Class of its specs."""
        return type(self.base)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Give a parser the flags of its command."""
        for part in self.first:
            part.add(parser, self.base)
        add_model(parser)
        for part in self.parts:
            part.add(parser, self.base)
        self.extras(parser)
        if isinstance(self.base, checks.BY_BLOCKS):
            add_onload(parser)
        add_job(parser)
        parser.set_defaults(job=self.name)

    def spec_from(self, arguments: argparse.Namespace, store: RunStore | None = None) -> Any:
        """The spec that the words of a command ask for.

        Raises:
            LrcError: a plan, text or setting is not there.
        """
        spec, store = self.spec_class(**{**vars(self.base), "model": model_ref(arguments)}), store or RunStore()
        for part in (*self.first, *self.parts):
            spec = part.read(spec, arguments, store)
        return spec

    def words_of(self, spec: Any, store: RunStore | None = None) -> str:
        """The command line that submits a spec, ready to copy; it reads back to the same spec."""
        said, store = self.base, store or RunStore()
        words = ["lrc", *(self.command or (self.name,))]
        for part in self.first:
            more, said = part.write(spec, said, store)
            words += more
        words += model_words(spec.model)
        for part in self.parts:
            more, said = part.write(spec, said, store)
            words += more
        return shlex.join(words)
