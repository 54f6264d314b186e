"""Keeping the server small: heavy libraries are refused, light ones are imported before a user has to wait for them.

No Streamlit: this is imported before it.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_log = logging.getLogger(__name__)

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "accelerate", "peft")
"""What only workers need: a second and more, and hundreds of megabytes."""
FIRST = ("pages.ui.shared.frame", "pages.ui.shared.cards", "pages.ui.home.views")
"""What Home imports."""
LATER = ("pandas", "plotly.graph_objects", "altair", "pyarrow", "pages.ui.spectra.tables", "pages.ui.compare.views")
"""What the other pages import, the charts' libraries first."""
THREAD = "warm-up"
PAUSE_S = 3.0
"""How long :data:`LATER` waits after :data:`FIRST`, so that the first page has the processor for itself."""


class HeavyImportError(ImportError):
    """The server was about to import a library that it must not."""


class _Refusal(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] in HEAVY:
            _log.error("The demo's server must not import %s.", name, stack_info=True)
            raise HeavyImportError(f"The demo's server must not import {name}.", name=name)


def refuse_heavy_imports() -> None:
    """From now on an import of a heavy library fails, and the log says where it was asked for."""
    if loaded := [name for name in HEAVY if name in sys.modules]:
        raise HeavyImportError(f"Already imported: {', '.join(loaded)}.")
    sys.meta_path.insert(0, _Refusal())


def _read_samples() -> None:
    """What Home shows of the shipped runs. Streamlit's caches work without a session, but complain about it."""
    complaint = logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context")
    complaint.addFilter(_not_this_thread)
    try:
        importlib.import_module("pages.ui.home.views").prepare()
    except Exception:  # Home says so, in words
        _log.exception("the samples could not be read")
    finally:
        complaint.removeFilter(_not_this_thread)


def _not_this_thread(record: logging.LogRecord) -> bool:
    return record.threadName != THREAD


def warm_up(ready: Callable[[], bool]) -> None:
    """Import in the background what pages need, once the server is ready, so that no visit waits for it."""

    def work() -> None:
        while not ready():
            time.sleep(0.02)
        for names in (FIRST, LATER):
            for name in names:
                try:
                    importlib.import_module(name)
                except ImportError:  # the page that needs it says so
                    _log.exception("%s could not be imported", name)
            if names is FIRST:
                _read_samples()
                time.sleep(PAUSE_S)

    threading.Thread(target=work, name=THREAD, daemon=True).start()
