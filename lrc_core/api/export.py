"""``export``: a plan on its model as a folder that other software loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lrc_core.api.load import NamedModel
from lrc_core.api.plan import ChosenPlan
from lrc_core.api.shown import Facts, ShownResult
from lrc_core.jobs.manager import result_in
from lrc_core.paths import expanded
from lrc_core.results.archive import AnyRun
from lrc_core.runs.spec import ExportSpec
from lrc_core.words import data_size, percent


class ExportedFolder(ShownResult):
    """A folder in the Hugging Face layout, which was loaded again and compared with the model in memory.

    Attributes:
        view: the run.
        result: as ``result.json`` has it: ``folder``, ``weight_bytes``, ``check``, ``ways`` and more.
    """

    def __init__(self, view: AnyRun) -> None:
        self.view, self.result = view, result_in(view.run)

    @property
    def id(self) -> str:
        """Of the run."""
        return self.view.id

    @property
    def path(self) -> Path:
        """The folder; ``AutoModelForCausalLM.from_pretrained`` takes it once ``lrc_core.hf`` is imported."""
        return Path(self.result["folder"])

    def facts(self) -> Facts:
        """Size, and what the check found."""
        found, check = self.result, self.result["check"]
        share = percent(found["weight_bytes"] / found["base_weight_bytes"])
        return {
            "folder": str(self.path),
            "weights": f"{data_size(found['weight_bytes'])}, {share} of the original",
            "loaded again": "same bits" if check["equal"] else f"within {check['difference']:.1e}",
            "run": self.id,
        }


def export(
    model: NamedModel, plan: ChosenPlan, to: str | Path = "", *, form: str = "lowrank", dtype: str = ""
) -> ExportedFolder:
    """Write a plan on its model as a folder, and check it by loading it again in another process.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        plan: of that model.
        to: a folder that is new or empty; by default one inside the run.
        form: ``lowrank``, as small as the plan says; or ``dense``, of stock shapes that load anywhere, as large as the
            original.
        dtype: of the stored weights: as ``lrc export --help`` lists them; the first of those by default.

    Raises:
        SettingsError: the folder holds something, or there is no such form or dtype.
        PlanError: the plan is of another model, or has no dense twin.
        ResourceError: the folder cannot be written.
        ExportError: what was written is not what is in memory.
    """
    asked: dict[str, Any] = {"form": form, **({"dtype": dtype} if dtype else {})}
    folder = os.path.abspath(expanded(str(to))) if str(to) else ""
    content = plan.plan.to_dict()
    spec = ExportSpec(model.ref, content, plan.folder, plan.calibration, to=folder, **asked)
    return ExportedFolder(model.work.done(spec))
