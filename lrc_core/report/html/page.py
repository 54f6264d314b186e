"""A report as one HTML file: everything is inside, and its content policy forbids to fetch anything. No torch."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from lrc_core.charts.theme import DARK, LIGHT, RAMP_DARK, RAMP_LIGHT, variables
from lrc_core.paths import assets
from lrc_core.report.content import (
    Answers,
    Block,
    CardEntry,
    Cards,
    Commands,
    Facts,
    Picture,
    Pictures,
    Report,
    Section,
    Switch,
    Table,
    TableRow,
    Words,
    WrittenAnswer,
)
from lrc_core.report.html.svg import ramp_style, svg, symbol
from lrc_core.report.sections.prose import printable, tied

_ASSETS = assets() / "report"


def escaped(text: str) -> str:
    """As text of an element or attribute."""
    return html.escape(printable(text))


def inline(text: str) -> str:
    """The few marks that text of a report may hold."""
    found = escaped(tied(text))
    found = re.sub(r"\[([^\]]+)\]\((https://[^)\s]+)\)", r'<a href="\2" rel="noreferrer">\1</a>', found)
    found = re.sub(r"`([^`]+)`", r"<code>\1</code>", found)
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", found)


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def report_html(report: Report) -> str:
    """The whole file."""
    title = escaped(report.title)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    dark = f":root {{ {variables(DARK)} {_EXTRA_DARK} }} {ramp_style(RAMP_DARK)}"
    contents = "".join(f'<li><a href="#{s.key}">{escaped(s.title)}</a></li>' for s in report.sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="generator" content="low-rank compression explorer">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {variables(LIGHT)} {_EXTRA_LIGHT} }}
{ramp_style(RAMP_LIGHT)}
@media screen and (prefers-color-scheme: dark) {{ {dark} }}
{_asset("report.css")}
</style>
</head>
<body>
<a class="skip" href="#question">Skip to the report</a>
<header>
<p class="kind">Low-rank compression report</p>
<h1>{title}</h1>
<p class="subtitle">{escaped(report.subtitle)}</p>
<p class="made">{escaped(report.made)} · run <code>{escaped(report.source)}</code>{report.more}</p>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
</header>
{_switches(report)}
<main>
{"".join(_section(number, section) for number, section in enumerate(report.sections, start=1))}
</main>
<footer>Made by the low-rank compression explorer. This file holds everything it shows and fetches nothing.</footer>
<div id="tip" role="status" aria-live="polite" hidden></div>
<script>
{_asset("report.js")}
</script>
</body>
</html>
"""


_EXTRA_LIGHT = "--muted: #55615f; --estimate: #8b9492; --bad: #b3372b; --cache: #c8641b; --chip-edge: #0000001f;"
_EXTRA_DARK = "--muted: #a9b5b3; --estimate: #9aa7a6; --bad: #ef8579; --cache: #e8935a; --chip-edge: #ffffff33;"


def _switches(report: Report) -> str:
    """What is shown: methods and targets. Hidden without a script, and on paper."""

    def boxes(legend: str, kind: str, choices: Iterable[Switch]) -> str:
        made = "".join(
            f'<label><input type="checkbox" checked data-{kind}="{escaped(choice.key)}">'
            f"{_chip(choice.color)}{escaped(choice.label)}</label>"
            for choice in choices
        )
        return f"<fieldset><legend>{legend}</legend>{made}</fieldset>"

    if len(report.methods) + len(report.targets) < 3:
        return ""
    return (
        '<form class="switches" aria-label="What is shown" hidden>'
        f"{boxes('Methods', 'switch-method', report.methods)}{boxes('Compression', 'switch-target', report.targets)}"
        '<output class="count"></output></form>'
    )


def _chip(color: str) -> str:
    return f'<span class="chip" style="background:{color}"></span>' if color else ""


def _section(number: int, section: Section) -> str:
    blocks = "".join(_block(block) for block in section.blocks)
    title = f'<h2 id="{section.key}-title"><span class="number">{number}</span>{escaped(section.title)}</h2>'
    return f'<section id="{section.key}" aria-labelledby="{section.key}-title">{title}{blocks}</section>\n'


def _block(block: Block) -> str:
    draw: Callable[[Any], str] = _DRAWN[type(block)]
    return draw(block)


def _words(block: Words) -> str:
    return f'<p class="{block.role}">{inline(block.text)}</p>'


def _how(how: str) -> str:
    return f'<span class="how {how}">{how}</span>' if how else ""


def _facts(block: Facts) -> str:
    cells = "".join(
        f"<div><dt>{escaped(fact.name)}</dt><dd>{escaped(tied(fact.value))}</dd>"
        f'<dd class="note">{inline(fact.note)} {_how(fact.how)}</dd></div>'
        for fact in block.entries
    )
    return f'<dl class="facts">{cells}</dl>'


def _data(key: tuple[str, str]) -> str:
    method, target = key
    return (f' data-method="{escaped(method)}"' if method else "") + (
        f' data-target="{escaped(target)}"' if target else ""
    )


def _table(block: Table) -> str:
    note = f'<p class="note">{inline(block.note)}</p>' if block.note else ""
    heads = "".join(
        f'<th scope="col" class="{"right" if column.numeric else "left"}" aria-sort="none">'
        f'<button type="button">{escaped(column.label)}</button>{_how(column.how)}</th>'
        for column in block.columns
    )
    lines = "".join(_line(line, block) for line in block.lines)
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(block.caption)}"><table>'
        f"<caption>{escaped(block.caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
    if block.detail:
        return f"<details><summary>{escaped(block.caption)}: all figures</summary>{table}{note}</details>"
    return table + note


def _line(line: TableRow, block: Table) -> str:
    cells = []
    for number, (cell, column) in enumerate(zip(line.cells, block.columns, strict=True)):
        look = " ".join(name for name, on in (("right", column.numeric), ("mono", column.mono)) if on)
        value = "" if cell.sort is None else f' data-v="{escaped(str(cell.sort))}"'
        mark = f"<sup>{escaped(cell.mark)}</sup>" if cell.mark else ""
        chip = _chip(line.color) if number == 0 else ""
        tag = "th" if number == 0 and not block.detail else "td"
        scope = ' scope="row"' if tag == "th" else ""
        klass = f' class="{look}"' if look else ""
        cells.append(f"<{tag}{scope}{klass}{value}>{chip}{escaped(cell.text)}{mark}</{tag}>")
    state = f' class="{line.state}"' if line.state else ""
    return f"<tr{state}{_data(line.key)}>{''.join(cells)}</tr>"


def _pictures(block: Pictures) -> str:
    legend = "".join(
        f'<li data-method="{escaped(entry.key)}">{symbol(entry.symbol, entry.color)}{escaped(entry.label)}</li>'
        for entry in block.legend
    )
    shown = f'<ul class="legend">{legend}</ul>' if legend else ""
    if block.ramp:
        steps = "".join(f'<rect class="l{2 * step}" x="{step * 16}" width="16" height="10"/>' for step in range(11))
        shown = (
            f'<p class="ramp"><span>0 %</span><svg width="176" height="10" aria-hidden="true">{steps}</svg>'
            f"<span>100 %</span> {escaped(block.ramp)}</p>"
        )
    kind = "heatmaps" if block.links is not None else f"charts of-{block.columns}"
    help_text = (
        '<p class="help">Point at a cell, or choose a heatmap with Tab and move with the arrow keys: the same layer is '
        "marked in all of them.</p>"
        if block.links is not None
        else '<p class="help">Point at a mark, or choose a chart with Tab and step through its marks with the arrow '
        "keys.</p>"
    )
    items = "".join(_picture(item) for item in block.items)
    table = _table(block.table) if block.table else ""
    figures = f'<script type="application/json">{_json(block.links)}</script>' if block.links is not None else ""
    abreast = f'style="--columns:{block.columns}" data-columns="{block.columns}"'
    return (
        f'<h3>{escaped(block.title)}</h3>{shown}{help_text}<div class="{kind}" {abreast}>{items}{figures}</div>{table}'
    )


def _json(cells: Any) -> str:
    """No "<" stays, so that nothing in it can end the script element."""
    content = {name: getattr(cells, name) for name in ("names", "kinds", "places", "full", "kept", "plans", "labels")}
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _picture(item: Picture) -> str:
    title = f'<span class="title">{escaped(item.title)}</span>' if item.title else ""
    note = f'<span class="note">{escaped(item.note)}</span>' if item.note else ""
    caption = f"<figcaption>{title}{note}</figcaption>" if title or note else ""
    said = f'<p class="reading">{inline(item.reading)}</p>' if item.reading else ""
    source = f'<p class="source">run <code>{escaped(item.source)}</code></p>' if item.source else ""
    name = escaped(item.title or item.alt)
    drawn = svg(item.drawing, item.alt)
    drawing = f'<div class="drawing" tabindex="0" role="group" aria-label="{name}">{drawn}</div>'
    return f"<figure{_data(item.key)}>{caption}{drawing}{said}{source}</figure>"


def _answers(block: Answers) -> str:
    entries = "".join(_answer(entry) for entry in block.entries)
    return (
        f'<h3>{escaped(block.title)}</h3><p class="note">{inline(block.note)}</p>'
        f'<blockquote><span class="label">Prompt</span>{escaped(block.prompt)}</blockquote>'
        f'<div class="answers">{entries}</div>'
    )


def _answer(entry: WrittenAnswer) -> str:
    measured = f'<p class="note">{escaped(entry.measured)}</p>' if entry.measured else ""
    source = f'<p class="source">run <code>{escaped(entry.source)}</code></p>' if entry.source else ""
    return (
        f'<article{_data(entry.key)} style="--method:{entry.color}"><h4>{escaped(entry.name)}</h4>'
        f'<p class="text">{escaped(entry.text)}</p>{measured}{source}</article>'
    )


def _cards(block: Cards) -> str:
    return f'<div class="cards">{"".join(_card(entry, block.largest) for entry in block.entries)}</div>'


def _card(entry: CardEntry, largest: int) -> str:
    bars = "".join(
        f'<span class="{part.key}" style="width:{100 * part.bytes / largest:.2f}%"></span>'
        for part in entry.parts
        if part.bytes
    )
    said = ", ".join(f"{part.name} {part.words}" for part in entry.parts)
    parts = "".join(
        f'<li><span class="chip {part.key}"></span>{escaped(part.name)} <b>{escaped(part.words)}</b> '
        f"{_how(part.how)}</li>"
        for part in entry.parts
    )
    lines = "".join(f"<p>{inline(line)}</p>" for line in entry.lines)
    note = f'<p class="note">{inline(entry.note)}</p>' if entry.note else ""
    return (
        f'<article{_data(entry.key)} style="--method:{entry.color}"><h3>{escaped(entry.name)}</h3>'
        f'<p>{inline(entry.total)}</p><div class="memory" role="img" aria-label="{escaped(said)}">{bars}</div>'
        f'<ul class="parts">{parts}</ul>{lines}{note}</article>'
    )


def _commands(block: Commands) -> str:
    entries = "".join(
        f'<li><span class="label">{escaped(entry.title)}</span>'
        + (f' <span class="source">run <code>{escaped(entry.source)}</code></span>' if entry.source else "")
        + f'<div class="command"><pre tabindex="0"><code>{escaped(entry.line)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div></li>'
        for entry in block.entries
    )
    return f'<ol class="commands">{entries}</ol>'


_DRAWN: dict[type, Callable[[Any], str]] = {
    Words: _words,
    Facts: _facts,
    Table: _table,
    Pictures: _pictures,
    Answers: _answers,
    Cards: _cards,
    Commands: _commands,
}
