"""Parts of HTML pages that need nothing from outside: pictures and tables."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } small, .faint { color: GrayText; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid color-mix(in srgb, GrayText 40%, transparent); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; } th { vertical-align: bottom; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption { color: GrayText; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; margin: .4rem 0 1.2rem; } .row figure { margin: 0; width: 170px; }
.row figcaption { font-size: .8rem; line-height: 1.3; } dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """Put a page together.

    Args:
        title: plain text.
        body: HTML.

    Returns:
        The whole page.
    """
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    inner = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head><body>\n<h1>{html.escape(title)}</h1>\n{inner}\n</body></html>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; all cells are plain text, the first column is the name of the row."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def picture_tag(picture: Image.Image, name: str, size: int | None = None) -> str:
    """Write a picture into the page: JPEG and at most `size` pixels a side, or PNG as it is."""
    picture = picture.convert("RGB")
    options: dict[str, object] = {"format": "PNG"}
    if size is not None:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
        options = {"format": "JPEG", "quality": 88}
    buffer = io.BytesIO()
    picture.save(buffer, **options)  # type: ignore[arg-type]
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = str(options["format"]).lower()
    label = html.escape(name, quote=True)
    return (
        f'<img alt="{label}" width="{picture.width}" height="{picture.height}" src="data:image/{kind};base64,{data}">'
    )
