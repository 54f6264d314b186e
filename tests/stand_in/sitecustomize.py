"""Loaded when a process that tests start begins: a worker that is told so does what a test says in place of its work.

The variable holds ``MODULE:FUNCTION``, of the same signature as :func:`lrc_core.pipeline.execute`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_WORKERS = {"lrc_core.jobs.worker", "lrc_core.jobs.node", "submitit.core._submit"}
if (function := os.environ.get("LRC_TEST_EXECUTE")) and _WORKERS & set(sys.orig_argv):

    def execute(run: Any, **said: Any) -> Any:
        """The test's function, imported when it is the run's turn."""
        module, name = str(function).split(":")
        return getattr(import_module(module), name)(run, **said)

    pipeline = ModuleType("lrc_core.pipeline")
    pipeline.execute = execute  # type: ignore[attr-defined]
    sys.modules["lrc_core.pipeline"] = pipeline
