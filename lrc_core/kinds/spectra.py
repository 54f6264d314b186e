"""``lrc spectra``: singular values of every layer."""

from __future__ import annotations

from lrc_core.errors import SettingsError
from lrc_core.kinds import checks
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words.flags import calibration, flag, flags
from lrc_core.runs.spec import SpectraSpec


def _check(spec: SpectraSpec) -> None:
    checks.check_decompositions(spec.decompositions)
    if spec.stream and spec.decompositions != ("svd",):
        raise SettingsError(
            "Only the plain SVD can be streamed: the other decompositions need the model's activations.",
            "Ask for the decomposition svd, or do not stream.",
        )
    if spec.stream and spec.subspaces:
        raise SettingsError("Streaming reads singular values only, not the subspaces.", "Leave one of the two away.")


def _check_models(spec: SpectraSpec) -> None:
    if spec.stream:
        checks.check_outline(spec.model)
    else:
        checks.check_model(spec.model, checks.windows_of(spec), checks.needs_whole(spec))


KIND = Kind(
    SpectraSpec(),
    label="Spectra",
    help="Singular spectra of every block linear.",
    stage="lrc_core.pipeline.allocation:spectra_run",
    show="lrc_core.cli.jobs:print_spectra",
    page="spectra",
    handler="lrc_core.cli.jobs:spectra",
    parts=(
        # A streamed one needs no text, so that no text makes it another run.
        flag(SpectraSpec, "stream", then=(("decompositions", ("svd",)),)),
        *flags(SpectraSpec, "decompositions", "subspaces"),
        *calibration(SpectraSpec, alone=True, seed="--seed", unless="stream"),
    ),
    check=_check,
    check_models=_check_models,
)
