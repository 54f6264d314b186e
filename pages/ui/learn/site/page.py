"""The page: all steps in one file that opens from a disk, a stick or a course's web space, with nothing to install."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from lrc_core.files import write_atomic
from lrc_core.names import model_label
from lrc_core.report.html.page import inline
from lrc_core.runs.spec import ModelRef
from pages.ui.learn.lesson_text import LessonText, lesson_text
from pages.ui.learn.site.parts import PARTS
from pages.ui.learn.steps import STEPS
from pages.ui.shared import pictures
from pages.ui.shared.prose import ASSETS

FOLDER = ASSETS / "learn"
_TRIED = ("picture", "outputs", "card")
_ITALIC, _EMPHASIS = re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"


def write(target: Path, ref: ModelRef) -> Path:
    """Write the lesson and return its file.

    Args:
        target: a file that ends with ``.html``, or a folder, which gets an ``index.html``.
        ref: whose pictures are shown; those of the shipped samples where it has none.

    Raises:
        ResourceError: it cannot be written there.
    """
    path = target if target.suffix.lower() in (".html", ".htm") else target / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page(ref))
    return path


def page(ref: ModelRef) -> str:
    """The whole page; it asks for nothing from anywhere."""
    links = "".join(
        f'<a href="#step-{number}">{number} · {escape(entry.short)}</a>' for number, entry in enumerate(STEPS, start=1)
    )
    steps = "".join(_step(number, entry.text, ref) for number, entry in enumerate(STEPS, start=1))
    flipbook = (FOLDER / "flipbook.js").read_text(encoding="utf-8").replace("export default function", "function flip")
    script = flipbook + (FOLDER / "site.js").read_text(encoding="utf-8")
    # For the flipbook's own elements alone; in the app a shadow root sees to that.
    book = f".book {{ {(FOLDER / 'flipbook.css').read_text(encoding='utf-8')} }}"
    style = "\n".join([pictures.CSS, book, (FOLDER / "site.css").read_text(encoding="utf-8")])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Low-rank compression in eight steps</title><style>{style}</style></head><body>"
        f'<header><h1>Low-rank compression in eight steps</h1><nav aria-label="Steps">{links}</nav></header>'
        f'<main class="pic">{steps}</main>'
        f"<footer>Figures of {escape(model_label(ref))} or of the shipped sample, as measured.</footer>"
        f"<script>{script}</script></body></html>"
    )


def _step(number: int, name: str, ref: ModelRef) -> str:
    text: LessonText = lesson_text(name)
    shown = PARTS[name](ref) or "<p>Nothing of this step is recorded yet.</p>"
    back = f'<a href="#step-{number - 1}">Back</a>' if number > 1 else "<span></span>"
    on = f'<a href="#step-{number + 1}">On: {escape(STEPS[number].short.lower())}</a>' if number < len(STEPS) else ""
    return (
        f'<section id="step-{number}"><h2>{number} · {escape(text.title)}</h2>{_body(name, text)}{shown}'
        f'{_try(name, text)}<div class="turn">{back}{on}</div>'
        f"<details><summary>Where this comes from</summary>{_prose(text.sources)}</details></section>"
    )


def _try(name: str, text: LessonText) -> str:
    """What to try, where the page has what it takes; other steps ask for controls of the app."""
    return f"<aside><b>Try.</b> {_prose(text.notice)}</aside>" if name in _TRIED else ""


def _body(name: str, text: LessonText) -> str:
    """The words above the picture, without the invitation to click on what is a drawing here."""
    parts = text.body.split("\n\n")
    return _prose("\n\n".join(parts[:-1] if name == "layers" else parts))


def _prose(text: str) -> str:
    """Paragraphs of a lesson's Markdown."""
    paragraphs = (inline(" ".join(part.split())) for part in text.split("\n\n"))
    return "".join(f"<p>{_ITALIC.sub(_EMPHASIS, part)}</p>" for part in paragraphs)
