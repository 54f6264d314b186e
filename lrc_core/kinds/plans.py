"""``--plan``: the plan that a run begins with, and the calibration that it brings along."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

from lrc_core.results.plans import find_plan, own_words, words_for
from lrc_core.runs.spec import CalibrationSpec
from lrc_core.runs.store import RunStore


@dataclass(frozen=True)
class PlanFlag:
    """The flag; a run's plan comes with that run's calibration unless something else is asked for.

    Attributes:
        required: whether there must be a plan.
    """

    required: bool = False

    def add(self, parser: argparse.ArgumentParser, base: Any) -> None:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`."""
        words = "plan file, run id, or RUN@20 for the plan recorded at 20 %% compression"
        parser.add_argument("--plan", metavar="FILE|RUN", required=self.required, help=words)

    def read(self, spec: Any, arguments: argparse.Namespace, store: RunStore) -> Any:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`.

        Raises:
            PlanError: there is no such plan.
        """
        if not arguments.plan:
            return spec
        found = find_plan(arguments.plan, store)
        calibration = found.calibration or CalibrationSpec()
        return replace(spec, plan=found.plan, plan_folder=found.folder, calibration=calibration)

    def write(self, spec: Any, said: Any, store: RunStore) -> tuple[list[str], Any]:
        """See :class:`~lrc_core.kinds.words.flags.SpecFlags`."""
        if spec.plan is None:
            return [], said
        words = words_for(spec, store)
        own = words == own_words(spec)
        calibration = spec.calibration if own else find_plan(words, store).calibration or CalibrationSpec()
        return ["--plan", words], replace(said, plan=spec.plan, plan_folder=spec.plan_folder, calibration=calibration)
