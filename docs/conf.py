"""How `make docs` builds the site."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from method_pages import write_pages  # noqa: E402 - found on the path above

project = "Low-Rank Compression Explorer"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build", "mattered"]
suppress_warnings = ["toc.not_included"]  # tables as `lrc bench` writes them, which results.md links to

write_pages(HERE / "methods")


def setup(app):
    """Links to what mattered lead to the page that holds it."""
    app.connect(
        "source-read", lambda app, name, text: text.__setitem__(0, text[0].replace("](mattered/", "](methods/"))
    )
