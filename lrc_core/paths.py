"""Where things lie on the user's disk, and whether anything may be written there.

Environment variables override every folder. In read-only mode the runs are the shipped samples, and nothing is started,
changed or deleted: ``LRC_READ_ONLY=1`` turns it on for all (``make demo``), and a server for its guests.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lrc_core import visitors
from lrc_core.errors import ReadOnlyError, ResourceError

READ_ONLY = "LRC_READ_ONLY"


def _nobody() -> bool:
    return False


_is_guest: Callable[[], bool] = _nobody
_PACKAGE = Path(__file__).resolve().parent
_NOWHERE = Path(os.devnull) / "not-for-visitors"
_INSTALLED = _PACKAGE / "_app"
"""Where a wheel puts what lies beside ``lrc_core`` in a clone: app.py, pages, assets and the server's settings."""


def is_clone() -> bool:
    """Whether the program is a clone that ``make`` works in, and not an installed wheel."""
    return not _INSTALLED.is_dir()


def app_home() -> Path:
    """Folder of app.py, pages and assets: the clone, or a folder of the installed package."""
    return _PACKAGE.parent if is_clone() else _INSTALLED


def assets() -> Path:
    """Folder of texts, styles, scripts and samples."""
    return app_home() / "assets"


def start_command(target: str) -> str:
    """How ``app`` or ``demo`` is started here: by make in a clone, by the command line where it is installed."""
    return f"{'make' if is_clone() else 'lrc'} {target}"


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables of a process of this package, which finds the package wherever it was found here.

    Args:
        more: variables that it gets besides.
    """
    home = str(_PACKAGE.parent)
    # Python looks into its own folder of packages anyway; named here, it would come before the standard library.
    known = home in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    paths = ["" if known else home, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **(more or {}), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def guests_only_read(is_guest: Callable[[], bool]) -> None:
    """Let a server say for whom it works at the moment: a guest gets the read-only mode."""
    global _is_guest
    _is_guest = is_guest


def read_only() -> bool:
    """Whether only the shipped samples are shown: to everybody by ``LRC_READ_ONLY``, or to the guest being served."""
    return os.environ.get(READ_ONLY, "") not in ("", "0") or _is_guest()


def require_writable(what: str, remedy: str = "") -> None:
    """Refuse in the read-only mode.

    Args:
        what: what was about to happen, as the end of a sentence: ``"no job is started"``.
        remedy: how to do it all the same; by default how to leave the mode.

    Raises:
        ReadOnlyError: the mode is on.
    """
    if read_only():
        raise ReadOnlyError(
            f"This is the read-only demo: {what}.", remedy or f"Start the app with `{start_command('app')}` instead."
        )


def samples_home() -> Path:
    """Folder of the runs that the program ships. ``LRC_SAMPLES`` overrides it."""
    return Path(os.environ.get("LRC_SAMPLES") or assets() / "samples").expanduser()


def cache_home() -> Path:
    """Folder of what can be fetched or computed again: starter pack, decompositions. ``LRC_CACHE`` overrides it."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrc"
    return Path(os.environ.get("LRC_CACHE") or default).expanduser()


def require_cache() -> Path:
    """The cache folder, made where it is not there.

    Raises:
        ResourceError: it cannot be written.
    """
    folder = cache_home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ResourceError(
            f"Cannot write to the cache folder {folder}: {_why_not(error)}.",
            "Set LRC_CACHE to a folder you may write to.",
        ) from error


def _why_not(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in its way"
    return error.strerror or str(error)


def expanded(name: str) -> Path:
    """The path that somebody means by a name, which may begin with ``~``; whatever the name, nothing is raised.

    Whether it is there is for ``os.path`` to say: of names that are too long, or hold what no name can, methods of
    ``Path`` raise OSError. What a visitor may not open is never there.
    """
    try:
        path = Path(os.path.expanduser(name))  # unlike Path's own it leaves the folder of nobody as it stands
    except ValueError:
        path = Path(name)
    return path if may_be_opened(path) else _NOWHERE


def may_be_opened(path: Path) -> bool:
    """Whether whoever is being served may open a path: anything, unless it is a visitor of a shared server."""
    return visitors.may_open(path, (runs_home(), cache_home(), samples_home()))


def runs_home() -> Path:
    """Folder of run folders: the user's (``LRC_RUNS`` overrides it), in the read-only mode the shipped samples."""
    if read_only():
        return samples_home()
    default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lrc" / "runs"
    return Path(os.environ.get("LRC_RUNS") or default).expanduser()


def plans_home() -> Path:
    """Folder of plans made by hand and of their scores, beside the runs. ``LRC_PLANS`` overrides it.

    In the read-only mode it is a folder that does not exist, since plans that a user saved are not among the samples.
    """
    if read_only():
        return samples_home() / ".plans"
    return Path(os.environ.get("LRC_PLANS") or runs_home().parent / "plans").expanduser()
