"""How `make docs` builds the site."""

project = "Low-Rank Compression Explorer"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
suppress_warnings = ["toc.not_included"]  # tables as `lrc bench` writes them, which results.md links to
