"""``lrc import``: another project's compressed folder becomes a plan with weights on its base model."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from lrc_core.errors import ModelError
from lrc_core.escape import escaped
from lrc_core.kinds.kind import Kind
from lrc_core.paths import expanded
from lrc_core.runs.spec import AdoptSpec
from lrc_core.runs.store import RunStore


class _FolderWord:
    """The folder as the first word."""

    def add(self, parser: argparse.ArgumentParser, base: AdoptSpec) -> None:
        words = "folder that LEMS, ASVD, Zero Sum SVD, SVD-LLM or `lrc export` wrote"
        parser.add_argument("folder", metavar="FOLDER", help=words)

    def read(self, spec: AdoptSpec, arguments: argparse.Namespace, store: RunStore) -> AdoptSpec:
        return replace(spec, folder=os.path.abspath(expanded(arguments.folder)))

    def write(self, spec: AdoptSpec, said: AdoptSpec, store: RunStore) -> tuple[list[str], AdoptSpec]:
        return [spec.folder], replace(said, folder=spec.folder)


def _check(spec: AdoptSpec) -> None:
    if not os.path.isdir(spec.folder):
        raise ModelError(f"There is no folder {spec.folder}.", "Name the folder that holds the compressed weights.")


KIND = Kind(
    AdoptSpec(),
    label="Import",
    help="Read another project's compressed folder as a plan with weights on its base model.",
    stage="lrc_core.pipeline.adopting:adopt_run",
    show="lrc_core.cli.jobs:print_plan",
    page="talk",
    first=(_FolderWord(),),
    command=("import",),
    title=lambda spec: f"Import {escaped(Path(spec.folder).name)}",
    what=lambda spec: Path(spec.folder).name,
    check=_check,
)
