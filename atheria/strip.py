"""Film strips: frames side by side on one picture, a row for each view."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Image as Picture

from atheria.files import atomically
from atheria.furniture import LIGHT, draw_scale_bar, fitting_size, font, magnified, text_width
from atheria.views import Density, Frame, Phase, View

SIDE = 192
"""Longer side of a panel, about, in pixels."""
_TYPE = 15
_GAP = 8
_BAR = 12


def spread(steps: int, frames: int) -> list[int]:
    """The steps of at most `frames` frames, evenly spread from 0 to `steps`, both included."""
    return sorted({round(i * steps / (frames - 1)) for i in range(frames)})


def strip(
    frames: Sequence[Frame],
    title: str,
    views: Sequence[View] | None = None,
    side: int = SIDE,
    cells_a_pixel: int = 1,
) -> Picture:
    """A film strip: a column for each frame, a row for each view, a scale that a whole row shares.

    Args:
        frames: At least one, of one universe.
        title: What stands above.
        views: None for density and phase.
        side: The longer side of a panel, about, in pixels.
        cells_a_pixel: Cells along a side of the block of which each of a frame's is the one with most energy.
    """
    height, width = (cells * cells_a_pixel for cells in frames[0].psi.shape[1:])
    shown = "" if cells_a_pixel == 1 else f", a pixel the brightest of {cells_a_pixel} × {cells_a_pixel}"
    return sheet(
        [(view.name, view, frames) for view in views or (Density(), Phase())],
        [f"step {frame.step}" for frame in frames],
        f"{title}, {height} × {width} cells{shown}",
        side,
        cells_a_pixel,
    )


def sheet(
    rows: Sequence[tuple[str, View, Sequence[Frame]]],
    heads: Sequence[str],
    title: str,
    side: int = SIDE,
    cells_a_pixel: int = 1,
) -> Picture:
    """A table of images.

    Args:
        rows: What stands beside each, its view and its frames; rows of one view object share its scale.
        heads: What stands above the columns.
        title: What stands above all.
        side: The longer side of a panel, about, in pixels.
        cells_a_pixel: As for `strip`.
    """
    tops = {
        id(view): view.top([frame for _, other, frames in rows if other is view for frame in frames])
        for _, view, _ in rows
    }
    images = [[magnified(view.image(f, tops[id(view)]), side) for f in frames] for _, view, frames in rows]
    width = max(panel.width for row in images for panel, _ in row)
    heights = [max(panel.height for panel, _ in row) for row in images]
    left, upper = _TYPE + 2 * _GAP, 3 * _TYPE + 3 * _GAP
    legend = max(_legend_width(view, tops[id(view)]) for _, view, _ in rows)
    size = (
        left + len(heads) * (width + _GAP) + legend + _GAP,
        upper + sum(heights) + len(rows) * _GAP + 2 * _TYPE + _GAP,
    )
    picture = Image.new("RGB", size, LIGHT.paper)
    draw = ImageDraw.Draw(picture)
    draw.text(
        (size[0] / 2, _GAP), title, LIGHT.ink, font(fitting_size(title, _TYPE + 2, size[0])), anchor="ma"
    )
    for column, head in enumerate(heads):
        x = left + column * (width + _GAP)
        type_size = font(fitting_size(head, _TYPE, width))
        draw.text((x + width / 2, upper - _GAP / 2), head, LIGHT.ink, type_size, anchor="md")
    y = upper
    for (label, view, _), panels, height in zip(rows, images, heights, strict=True):
        _paste_upright(picture, label, (_GAP, y), height)
        for column, (panel, _) in enumerate(panels):
            picture.paste(panel, (left + column * (width + _GAP) + (width - panel.width) // 2, y))
        _draw_bar(picture, (left + len(heads) * (width + _GAP), y), height, view, tops[id(view)])
        y += height + _GAP
    first, pixels = images[0][0]
    bar = (left + (width - first.width) // 2, y)
    draw_scale_bar(draw, bar, pixels / cells_a_pixel, first.width // 2, LIGHT, _TYPE - 2)
    return picture


def save(picture: Picture, path: Path) -> None:
    """Writes a picture as PNG, whole or not at all."""
    content = encode(picture)
    atomically(path, lambda file: file.write_bytes(content))


def encode(picture: Picture) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=4)
    return buffer.getvalue()


def _legend_width(view: View, top: float) -> int:
    texts = [text for _, text in view.ticks(top)]
    return max(_BAR + 6 + max(text_width(text, _TYPE - 2) for text in texts), 0) + _TYPE + 6


def _draw_bar(picture: Picture, place: tuple[int, int], height: int, view: View, top: float) -> None:
    """An upright colour bar, its numbers beside it, what it measures beside those."""
    x, y = place
    draw = ImageDraw.Draw(picture)
    column = view.bar(np.linspace(1, 0, height))
    picture.paste(Image.fromarray(np.repeat(column[:, None], _BAR, axis=1)), (x, y))
    ticks = view.ticks(top)
    for share, text in ticks:
        anchor = {0.0: "ld", 1.0: "la"}.get(share, "lm")
        level = y + (1 - share) * (height - 1)
        draw.text((x + _BAR + 5, level), text, LIGHT.ink, font(_TYPE - 2), anchor=anchor)
    beside = x + _BAR + 6 + max(text_width(text, _TYPE - 2) for _, text in ticks)
    _paste_upright(picture, view.quantity, (beside, y), height)


def _paste_upright(picture: Picture, text: str, place: tuple[int, int], height: int) -> None:
    """A text that reads upwards, in the middle of a height."""
    size = fitting_size(text, _TYPE, height)
    width = text_width(text, size)
    line = Image.new("RGB", (width, _TYPE + 5), LIGHT.paper)
    ImageDraw.Draw(line).text((0, 0), text, LIGHT.ink, font(size))
    turned = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (place[0], place[1] + (height - width) // 2))
