"""A film as one HTML file that plays from disk with no network: player, style and figures are inside. No torch."""

from __future__ import annotations

import html
import json
from functools import cache

from lrc_core.charts.film import Film
from lrc_core.charts.theme import DARK, LIGHT, variables
from lrc_core.paths import assets

_RANKS = ("base.js", "ranks.js")
_PARTS = (*_RANKS, "chart.js", "player.js")
_PAGE_STYLE = """
body { margin: 0 auto; max-width: 1280px; padding: 1.6rem 1.2rem 2.5rem; background: var(--st-background-color);
  color: var(--st-text-color); font: 400 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.3rem; }
header p, footer { opacity: 0.85; margin: 0 0 1.2rem; }
footer { margin: 1.6rem 0 0; font-size: 0.85rem; }
code { overflow-wrap: anywhere; }
"""


@cache
def player() -> tuple[str, str]:
    """Script and style of the player, which the app shows too. The script is a module that exports ``mount``."""
    return _joined(_PARTS), _joined(("film.css",))


@cache
def rank_grid() -> tuple[str, str]:
    """Script and style of the player's heatmap of ranks alone, for a script that shows ranks without training."""
    return _joined(_RANKS), _joined(("film.css",))


@cache
def chart_parts() -> str:
    """The small functions that every chart of the player is made with, for the script of another chart."""
    return _joined(_RANKS[:1])


def _joined(names: tuple[str, ...]) -> str:
    folder = assets() / "film"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def film_html(film: Film) -> str:
    """The whole file. Nothing in it can be fetched from elsewhere: its content policy forbids it."""
    script, style = player()
    title = html.escape(film.title)
    # No "<" stays in the figures, so that nothing in them can end the script element.
    figures = json.dumps(film.to_dict(), ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
{_PAGE_STYLE}{style}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{html.escape(film.detail)}. How the ranks were learned, step by step.
Drag over a chart to look at some steps only.</p>
</header>
<main><div class="film"></div></main>
<noscript>This file needs JavaScript to play; its figures are in its source.</noscript>
<footer>Run <code>{html.escape(film.run)}</code>, recorded while it trained. Made by the low-rank compression explorer:
<code>lrc runs film {html.escape(film.run)} --html FILE</code></footer>
<script type="application/json" id="figures">{figures}</script>
<script type="module">
{script}
mount({{ data: JSON.parse(document.getElementById("figures").textContent), parentElement: document }});
</script>
</body>
</html>
"""
