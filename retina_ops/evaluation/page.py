"""Pages of HTML that refer to no other file: headings, text, tables, plots as SVG, pictures."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from ..files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; color: #555; }
svg, img { max-width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.pictures figure { margin: 0; } .pictures img { width: 100%; }
blockquote { border-left: 4px solid #999; margin-left: 0; padding-left: 1rem; }
"""


class Page:
    """A page that is written piece by piece. Texts are escaped."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{_text(title)}</h1>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{_text(text)}</h2>")

    def paragraph(self, text: str) -> None:
        self._parts.append(f"<p>{_text(text)}</p>")

    def quote(self, text: str) -> None:
        self._parts.append(f"<blockquote>{_text(text)}</blockquote>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Numbers are aligned to the right; None is shown as a dash."""
        head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def plot(self, figure: Figure, caption: str) -> None:
        """A matplotlib figure as SVG. The caption is its text for screen readers as well."""
        with needs_extra("train"):
            import matplotlib
            from matplotlib.backends.backend_svg import FigureCanvasSVG
        drawing = io.StringIO()
        # Text stays text, so that the browser's fonts show characters that matplotlib's font lacks.
        with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            FigureCanvasSVG(figure).print_svg(drawing, metadata={"Date": None, "Creator": None})
        svg = drawing.getvalue()[drawing.getvalue().index("<svg") :]
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{_text(caption)}"', 1)
        self._parts.append(f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>")

    def pictures(self, pictures: Sequence[tuple[bytes, str]]) -> None:
        """JPEG files with their captions, side by side."""
        figures = [
            f'<figure><img alt="{_text(caption)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
            for data, caption in pictures
        ]
        self._parts.append(f'<div class="pictures">{"".join(figures)}</div>')

    def write(self, path: str | Path) -> Path:
        """Writes the page. Returns the path."""
        body = "\n".join(self._parts)
        write_text(
            Path(path),
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
            f"<body>\n{body}\n</body></html>\n",
        )
        return Path(path)


def _text(value: object) -> str:
    """Escaped, with control characters and lone surrogates shown as question marks."""
    shown = "".join(c if c.isprintable() or c == " " else "?" for c in str(value))
    return html.escape(shown)


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="number">-</td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.3f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{_text(value)}</td>"
