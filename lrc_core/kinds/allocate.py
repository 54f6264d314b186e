"""``lrc allocate``: the rank of every layer is chosen."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from lrc_core.budget import check_keep
from lrc_core.decompose import require_loss
from lrc_core.errors import BudgetError, SettingsError
from lrc_core.formats.budgets import BOTH, RANKS, VARY, VARY_WORDS, budget_words, byte_budget, latency_share
from lrc_core.kinds import checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.choices import add_settings, settings_of, settings_words
from lrc_core.kinds.words.flags import CALIBRATION_SEED, calibration, flag, flags
from lrc_core.names import method_label
from lrc_core.plan import DEFAULT_STORAGE, variant_name
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import RunStore

NO_PRESET = "none"
"""How the command line says that settings are given without a preset."""


class _Settings:
    """Preset and single settings become the complete settings of the method."""

    def add(self, parser: argparse.ArgumentParser, base: AllocateSpec) -> None:
        parser.add_argument("--preset", help="named settings of the method (default: its first, quick)")
        add_settings(parser)

    def read(self, spec: AllocateSpec, arguments: argparse.Namespace, store: RunStore) -> AllocateSpec:
        entry = ALLOCATORS.get(spec.method)
        preset = next(iter(entry.presets), "") if arguments.preset is None else arguments.preset
        preset = "" if preset == NO_PRESET else preset
        settings = entry.settings(preset or None, settings_of(arguments))
        return replace(spec, preset=preset, settings=asdict(settings))

    def write(self, spec: AllocateSpec, said: AllocateSpec, store: RunStore) -> tuple[list[str], AllocateSpec]:
        base = asdict(ALLOCATORS.get(spec.method).settings(spec.preset or None))
        words = ["--preset", spec.preset or NO_PRESET, *settings_words(dict(spec.settings), base)]
        return words, replace(said, preset=spec.preset, settings=spec.settings)


class _Storage:
    """The law by which layers are stored, so far as the method bears it."""

    flag = flag(AllocateSpec, "storage")

    def add(self, parser: argparse.ArgumentParser, base: AllocateSpec) -> None:
        self.flag.add(parser, base)

    def read(self, spec: AllocateSpec, arguments: argparse.Namespace, store: RunStore) -> AllocateSpec:
        return _bearable(self.flag.read(spec, arguments, store))

    def write(self, spec: AllocateSpec, said: AllocateSpec, store: RunStore) -> tuple[list[str], AllocateSpec]:
        words, _ = self.flag.write(spec, _bearable(replace(said, method=spec.method)), store)
        return words, replace(said, storage=spec.storage)


def _bearable(spec: AllocateSpec) -> AllocateSpec:
    return replace(spec, storage=ALLOCATORS.get(spec.method).storage(spec.storage))


def _extras(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save", metavar="FILE", help="also write the plan to this file")


def _check(spec: AllocateSpec) -> None:
    if spec.budget and latency_share(spec.budget) is not None:
        _check_time(spec)
    elif spec.budget:
        _check_bytes(spec)
    check_keep(spec.keep)
    checks.check_decompositions([spec.decomposition])
    ALLOCATORS.get(spec.method).settings(None, spec.settings)


def _check_bytes(spec: AllocateSpec) -> None:
    """Refuse what no budget in bytes can be given to; what a model can be shrunk to is checked by the job."""
    byte_budget(spec.budget)
    if spec.vary not in VARY:
        raise SettingsError(f"A budget in bytes cannot vary {spec.vary!r}.", f"Choose one of {', '.join(VARY)}.")
    _require_able(spec, "bytes", "in 16 bits it is the same share of the bytes")
    require_loss(spec.decomposition)


def _check_time(spec: AllocateSpec) -> None:
    """Refuse what no budget in time can be given to."""
    if spec.vary not in (BOTH, RANKS):
        raise SettingsError("A budget in time chooses ranks alone: formats have no kernels here.", "Leave --vary away.")
    _require_able(spec, "a time", "time follows it, if not in proportion")


def _require_able(spec: AllocateSpec, what: str, share: str) -> None:
    if not ALLOCATORS.get(spec.method).by_bytes:
        able = ", ".join(entry.name for entry in ALLOCATORS if entry.by_bytes)
        raise BudgetError(
            f"{method_label(spec.method)} chooses ranks in 16 bits and cannot be given {what}.",
            f"Choose {able}, or a share to keep: {share}.",
        )


def _what(spec: AllocateSpec) -> str:
    variant = variant_name(spec.method, "", spec.storage)
    return f"{variant} at {_size(spec)}" if spec.budget else titles.listed(variant, spec.keep)


def _size(spec: AllocateSpec) -> str:
    """The target in words."""
    if not spec.budget:
        return titles.sizes([spec.keep])
    return budget_words(spec.budget) + ("" if spec.vary == BOTH else f", {VARY_WORDS[spec.vary]}")


KIND = Kind(
    AllocateSpec(method="llrc", storage=DEFAULT_STORAGE),
    label="Allocate",
    help="Choose the rank of every layer. `lrc methods` lists the methods and their settings.",
    stage="lrc_core.pipeline.allocation:allocation_run",
    show="lrc_core.cli.jobs:print_plan",
    page="allocate?al_run={id}",
    parts=(
        flag(AllocateSpec, "method"),
        flag(AllocateSpec, "keep", unless="budget"),
        flag(AllocateSpec, "budget", then=(("keep", 1.0),)),
        *flags(AllocateSpec, "vary", "decomposition"),
        _Settings(),
        _Storage(),
        *flags(AllocateSpec, "rank_multiple", "seed"),
        *calibration(AllocateSpec, alone=True, seed=CALIBRATION_SEED),
    ),
    extras=_extras,
    title=lambda spec: f"{method_label(variant_name(spec.method, '', spec.storage))} at {_size(spec)}",
    what=_what,
    check=_check,
)
