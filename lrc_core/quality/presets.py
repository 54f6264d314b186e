"""How much a bench measures, by the machine it runs on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lrc_core.errors import SettingsError
from lrc_core.models.pack.starter import TASKS
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import CalibrationSpec, EvaluationSpec


@dataclass(frozen=True)
class BenchPreset:
    """One size of bench.

    Attributes:
        method_preset: preset of every method that has it; the others stay on their first one.
        calibration: of every run.
        evaluation: of every run; its tasks are run at chosen targets only.
    """

    method_preset: str
    calibration: CalibrationSpec
    evaluation: EvaluationSpec


PRESETS = {
    # Two cores: the methods' `quick` presets probe on 4 x 256 tokens and train for ten minutes at most.
    "bench": BenchPreset("quick", CalibrationSpec(), EvaluationSpec(tasks=TASKS, items=100)),
    "gpu": BenchPreset("standard", CalibrationSpec(windows=256), EvaluationSpec(tasks=TASKS, items=0, max_windows=240)),
}


def bench_preset(name: str) -> BenchPreset:
    """The preset of that name.

    Raises:
        SettingsError: there is none.
    """
    if name not in PRESETS:
        raise SettingsError(f"There is no bench preset {name!r}.", f"Choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def method_presets(preset: BenchPreset, methods: Iterable[str]) -> dict[str, str]:
    """The preset of each method that is not on its first one.

    Raises:
        UnknownNameError: a method is not registered.
    """
    entries = [ALLOCATORS.get(method) for method in methods]
    return {
        entry.name: preset.method_preset
        for entry in entries
        if preset.method_preset in entry.presets and next(iter(entry.presets)) != preset.method_preset
    }
