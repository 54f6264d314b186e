"""``lrc update``: a plan's factors are fitted or tuned."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from lrc_core.errors import PlanError
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.plans import PlanFlag
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.choices import add_settings, settings_of, settings_words
from lrc_core.kinds.words.flags import CALIBRATION_SEED, calibration
from lrc_core.runs.spec import UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.updates import KINDS, UPDATES, update_settings


class _Settings:
    """The kind of update and single settings become the complete settings."""

    def add(self, parser: argparse.ArgumentParser, base: UpdateSpec) -> None:
        parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help=f"which factors (default: {KINDS[0]})")
        add_settings(parser)

    def read(self, spec: UpdateSpec, arguments: argparse.Namespace, store: RunStore) -> UpdateSpec:
        settings = update_settings({"kind": arguments.kind, **settings_of(arguments)})
        return replace(spec, settings=asdict(settings))

    def write(self, spec: UpdateSpec, said: UpdateSpec, store: RunStore) -> tuple[list[str], UpdateSpec]:
        base = asdict(update_settings({"kind": spec.settings.get("kind", KINDS[0])}))
        settings = {**base, **spec.settings}
        words = ["--kind", str(settings["kind"]), *settings_words(settings, base)]
        return words, replace(said, settings=spec.settings)


def _title(spec: UpdateSpec) -> str:
    kind = str(spec.settings.get("kind"))
    doing = UPDATES.get(kind).title if kind in UPDATES else "Update factors"
    return f"{doing} of {titles.plan_title(spec.plan)}"


def _check(spec: UpdateSpec) -> None:
    update_settings(spec.settings)
    if formats := (spec.plan or {}).get("formats"):
        raise PlanError(
            f"This plan rounds {len(formats)} layers to number formats, which would round an update away.",
            "Update the plan of a budget without formats; rounding comes last.",
        )


KIND = Kind(
    UpdateSpec(),
    label="Update factors",
    help="Fit or tune a plan's factors.",
    stage="lrc_core.pipeline.updating:update_run",
    show="lrc_core.cli.jobs:print_update",
    page="compare",
    parts=(PlanFlag(required=True), _Settings(), *calibration(UpdateSpec, seed=CALIBRATION_SEED)),
    title=_title,
    what=lambda spec: titles.listed_plan(spec.plan, str(spec.settings.get("kind", ""))),
    check=_check,
)
