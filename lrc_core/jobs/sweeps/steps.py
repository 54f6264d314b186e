"""The steps of a sweep: which runs it consists of, and what comes after what. No torch.

Each step is a run that `lrc bench quality` would make as well, of the same id: fetch once, one allocation that makes
the factors, the other allocations after it, updates and evaluations after those, and the bench itself at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from lrc_core.budget import removed_percent
from lrc_core.plan import PAIR
from lrc_core.records import Count, Label, Name, Share
from lrc_core.records.limits import OneOf
from lrc_core.registry import ALLOCATORS
from lrc_core.results.bench_lines import BenchLine, evaluation_at, quality_lines
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, FetchSpec, QualitySpec, UpdateSpec
from lrc_core.updates import NO_UPDATE

FETCH, ALLOCATE, UPDATE, EVALUATE, TABLE = KINDS_OF_STEP = ("fetch", "allocate", "update", "evaluate", "quality")


@dataclass(frozen=True)
class Step:
    """One run of a sweep.

    Attributes:
        key: its name in the sweep.
        kind: of the run.
        label: what it does, in words.
        model: place of the model's bench among those of the sweep.
        spec: record of the run's spec; of an update or an evaluation still without the plan.
        plan: key of the step whose plan it takes, "" for none.
        keep: share to keep of that plan, where a training may have passed it on its way.
        shared: key of that training; of an allocation that is only needed where the training did not pass its rate.
        update: kind of the update.
        format: number format that the whole model is measured in.
        after: keys of all steps that must have ended before.
        row: columns of the table that an evaluation has beside its figures.
    """

    key: Label
    kind: Annotated[str, OneOf(KINDS_OF_STEP)]
    label: Label
    model: Count
    spec: Mapping[str, Any]
    plan: Label = ""
    keep: Share = 0.0
    shared: Label = ""
    update: Name | None = None
    format: Label = ""
    after: tuple[Label, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)


class Steps:
    """Collects the steps of the benches of a sweep, in an order in which each comes after what it needs."""

    def __init__(self) -> None:
        self.all: list[Step] = []
        self._contents: tuple[tuple[str, str], ...] = ()

    def add_bench(self, spec: QualitySpec, *, fetch: bool) -> None:
        """All steps of one model's bench.

        Args:
            spec: with the contents of what it names.
            fetch: whether the model is downloaded first.
        """
        self._contents = spec.contents
        model = sum(step.kind == TABLE for step in self.all)
        first = len(self.all)
        begin: tuple[str, ...] = ()
        if fetch:
            begin = (self._add(FETCH, model, "fetch the model", FetchSpec(spec.model)),)
        dense = self._measure(spec, model, None, "dense model", begin, {"method": "dense", "keep_target": 1.0})
        for name in spec.formats:
            row = {"method": name.lower(), "keep_target": 1.0}
            self._measure(spec, model, None, name, (dense,), row, format=name)
        makers: dict[Any, str] = {}
        lines = quality_lines(spec)
        for line in sorted(lines, key=_makes_factors_last):
            self._add_line(spec, model, line, begin, makers)
        before = tuple(step.key for step in self.all[first:])
        self._add(TABLE, model, "the table", spec, after=before)

    def _add_line(
        self, spec: QualitySpec, model: int, line: BenchLine, begin: Sequence[str], makers: dict[Any, str]
    ) -> None:
        """A method at every target. The first of all with the same factors makes them, and the others wait for it."""
        entry, base, learned = ALLOCATORS.get(line.base.method), line.base, ""
        factors = (base.decomposition, base.calibration)
        for keep in sorted(spec.keeps):
            label = f"{line.label} at {removed_percent(keep):g} %"
            made = () if entry.structured else tuple(filter(None, [makers.get(factors)]))
            after = (*begin, *made, *((learned,) if learned else ()))
            wanted = replace(base, keep=keep)
            known = self._known(wanted)
            plan = known or self._add(
                ALLOCATE, model, f"allocate {label}", wanted, shared=learned, keep=keep, after=after
            )
            if not entry.structured:
                makers.setdefault(factors, plan)
            if spec.share_path and entry.learns:
                learned = learned or plan
            for kind in () if line.update == NO_UPDATE else line.update.split("+"):
                like = UpdateSpec(spec.model, calibration=base.calibration)
                plan = self._add(UPDATE, model, f"update {label}", like, plan=plan, update=kind, after=(plan,))
            row = {
                "method": base.method,
                "decomposition": base.decomposition,
                "seed": base.seed,
                **({"update": line.update} if line.update != NO_UPDATE else {}),
                **({"storage": base.storage} if base.storage != PAIR else {}),
                "keep_target": keep,
                **line.columns,
            }
            self._measure(spec, model, base, label, (plan,), row, plan=plan)

    def _measure(
        self,
        spec: QualitySpec,
        model: int,
        base: AllocateSpec | None,
        label: str,
        after: tuple[str, ...],
        row: Mapping[str, Any],
        **more: str,
    ) -> str:
        calibration = base.calibration if base else replace(spec.calibration, seed=spec.seeds[0])
        keep = float(row["keep_target"]) if base else None
        wanted = EvaluateSpec(spec.model, calibration=calibration, evaluation=evaluation_at(spec, keep))
        row = {"model": spec.model.source, **row}
        return self._add(EVALUATE, model, f"evaluate {label}", wanted, after=after, row=row, **more)

    def _known(self, wanted: AllocateSpec) -> str:
        """The step that does this already: lines with different updates begin with the same plans."""
        record = replace(wanted, contents=self._contents).to_dict()
        return next((step.key for step in self.all if step.kind == ALLOCATE and step.spec == record), "")

    def _add(self, kind: str, model: int, label: str, spec: Any, **more: Any) -> str:
        if kind != FETCH:  # which brings the content
            spec = replace(spec, contents=self._contents)
        key = f"{len(self.all):04d}"
        self.all.append(Step(key, kind, label, model, spec.to_dict(), **more))
        return key


def _makes_factors_last(line: BenchLine) -> int:
    """Cheap methods first: what waits for their factors waits least."""
    entry = ALLOCATORS.get(line.base.method)
    return 0 if entry.name == "uniform" else 2 if entry.learns or entry.structured else 1
