"""``lrc fetch``: a model is downloaded and checked."""

from __future__ import annotations

from lrc_core.kinds.kind import Kind
from lrc_core.runs.spec import FetchSpec

KIND = Kind(
    FetchSpec(),
    label="Fetch the model",
    help="Download a model and check that it fits.",
    stage="lrc_core.pipeline.session:write_card",
    show="lrc_core.cli.jobs:print_fetched",
    page="home",
    light=True,
)
