"""How results show themselves in a notebook: as HTML with the picture inside."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path


def shown(rows: Sequence[Sequence[str]], picture: Path) -> str:
    """HTML of a table, its first row the head, above a picture.

    Args:
        rows: Cells of text, which are escaped.
        picture: A PNG file; left out where it is not on this machine.
    """
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
    table = "<table>" + "".join(lines) + "</table>"
    if not picture.is_file():
        return table
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'{table}<img alt="{html.escape(picture.name)}" src="data:image/png;base64,{data}">'
