"""Tables as text and as HTML, for results that a terminal or a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def as_text(header: Sequence[str], rows: Rows, left: int = 0, notes: Sequence[str] = ()) -> str:
    """Columns under a line, the first `left` flush left, the others flush right; then notes."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))
        )
        for row in table
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *notes])


def as_html(header: Sequence[str], rows: Rows, caption: str = "", left: Sequence[int] = ()) -> str:
    """The same for a notebook; the columns `left` flush left. Without a header the first column
    names its row."""

    def cells(tag: str, row: Sequence[str]) -> str:
        styles = [" style='text-align:left'" if i in left else "" for i in range(len(row))]
        tags = [tag if header or i else "th" for i in range(len(row))]
        parts = (f"<{t}{s}>{html.escape(c)}</{t}>" for t, s, c in zip(tags, styles, row))
        return f"<tr>{''.join(parts)}</tr>"

    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    head = f"<thead>{cells('th', header)}</thead>" if header else ""
    body = "".join(cells("td", row) for row in rows)
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"
