"""``python -m pages.ui.learn.site TARGET [MODEL [REVISION]]``: write the lesson; what ``lrc lesson --html`` calls."""

from __future__ import annotations

import sys
from pathlib import Path

from lrc_core.runs.spec import ModelRef
from pages.ui.learn.site.page import write


def main(arguments: list[str]) -> int:
    """Write the page and say where it lies."""
    target, source, revision = (*arguments, *("", "", ""))[:3]
    print(write(Path(target), ModelRef(source or "starter", revision)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
