"""How `make docs` builds the site."""

project = "Low-Rank Compression Explorer"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
