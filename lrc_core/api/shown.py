"""What results look like in a notebook and in a terminal."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

Facts = Mapping[str, str]


class ShownResult:
    """Prints as a line of facts, and in a notebook as a small table of them."""

    def facts(self) -> Facts:
        """Names and values, the most important first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {value}" for name, value in self.facts().items())
        return f"<{type(self).__name__} {inside}>"

    def _repr_html_(self) -> str:
        return facts_html(self.facts())


def facts_html(facts: Facts) -> str:
    """A table of two columns."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f'<table class="lrc">{rows}</table>'


def rows_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line of names on top."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="lrc"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
