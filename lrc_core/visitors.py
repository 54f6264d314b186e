"""For whom this process works: whoever runs it, or a visitor of a server that many share.

A visitor does what everybody with the link may do, within the rules of the server: paths are opened only inside named
folders, and hub ids only where they are named, if any are. Whoever started the server is bound by nothing, and neither
are the command line and the workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lrc_core.errors import SharedServerError


@dataclass(frozen=True)
class Rules:
    """What visitors of a shared server may do.

    Attributes:
        models: hub ids, folders and files that they may open. Without a hub id among them every one may be fetched;
            paths are never opened unless they are named, or lie in a folder that is.
        jobs: of one visitor that may wait or run at the same time.
        disk_bytes: that runs and caches may take for another job to be started; 0 for no limit.
        admin: they may stop and delete what others started.
    """

    models: tuple[str, ...] = ()
    jobs: int = 3
    disk_bytes: int = 0
    admin: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The named paths, as the disk knows them."""
        return tuple(os.path.realpath(os.path.expanduser(name)) for name in self.models if _is_path(name))

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """The named models of the hub."""
        return tuple(name for name in self.models if not _is_path(name))


def _nobody() -> str | None:
    return None


_rules = Rules()
_who: Callable[[], str | None] = _nobody


def share(rules: Rules, who: Callable[[], str | None]) -> None:
    """From now on this process serves visitors.

    Args:
        who: the visitor that is being served at the moment, by a key that only says who is the same; None for nobody,
            as in a thread of the server's own.
    """
    global _rules, _who
    _rules, _who = rules, who


def visitor() -> str | None:
    """The visitor that is being served, None where the process works for whoever runs it."""
    return _who()


def rules() -> Rules:
    """What visitors may do."""
    return _rules


def shown(who: str) -> str:
    """How a visitor is called where others read it: the key without most of its letters."""
    return f"visitor {who[:6]}"


def may_open(path: Path, homes: tuple[Path, ...]) -> bool:
    """Whether the path may be opened for the visitor who is being served, if there is one.

    What lies outside by its letters is never looked for on the disk; what lies inside is followed through its links.

    Args:
        homes: the program's own folders, where visitors may read as well.
    """
    if visitor() is None:
        return True
    inside = (*map(os.path.realpath, homes), *_rules.folders)
    spelled = (*map(os.path.abspath, homes), *inside)
    try:
        return _within(os.path.abspath(path), spelled) and _within(os.path.realpath(path), inside)
    except ValueError:  # of what no path can hold
        return False


def require_hub_id(name: str) -> None:
    """Refuse a hub id that the server does not offer.

    Raises:
        SharedServerError: names those that it does.
    """
    named = _rules.hub_ids
    if visitor() is not None and named and name not in named:
        raise SharedServerError(
            f"This shared server does not offer {name}.",
            f"It offers {', '.join(['starter', *named][:8])}. Whoever runs it can add others: `lrc app --models`.",
        )


def not_offered(name: str) -> SharedServerError:
    """The refusal of a path, in the same words whether it is there or not."""
    return SharedServerError(
        f"{name} is not among the folders that this shared server opens.",
        "Whoever runs it can add it: `lrc app --shared --models FOLDER`.",
    )


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or os.path.exists(os.path.expanduser(name))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
