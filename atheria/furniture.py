"""What stands around an image of cells: text, scale bar, legend. Drawn by Pillow, fast enough for films."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atheria.colours import Colours
from atheria.views import View

Font = ImageFont.FreeTypeFont


class Theme(NamedTuple):
    """Colours around an image, sRGB."""

    paper: tuple[int, int, int]
    ink: tuple[int, int, int]


DARK = Theme((24, 24, 28), (225, 225, 228))
LIGHT = Theme((255, 255, 255), (30, 30, 34))


@cache
def font(size: int) -> Font:
    """The font that matplotlib brings, which has Greek letters and subscripts."""
    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def text_width(text: str, size: int) -> int:
    """Pixels."""
    return int(np.ceil(font(size).getlength(text)))


def fitting_size(text: str, size: int, width: int, smallest: int = 8) -> int:
    """The largest size of type, up to `size`, at which a text is no wider than `width` pixels."""
    while size > smallest and text_width(text, size) > width:
        size -= 1
    return size


def magnified(image: Colours, side: int) -> tuple[Image.Image, float]:
    """An image whose longer side is about `side` pixels, and how many pixels a cell has there.

    Cells become squares of whole pixels; where there are more cells than pixels, the mean of their colours is
    shown.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    cells = Image.fromarray(image)
    if longest > 4 * side / 3:
        scale = side / longest
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cells.resize(size, Image.Resampling.BOX), scale
    zoom = max(1, round(side / longest))
    return cells.resize((width * zoom, height * zoom), Image.Resampling.NEAREST), float(zoom)


def scale_bar_cells(pixels_per_cell: float, room: float) -> int:
    """Length of a scale bar in cells: the largest of 1, 2, 5, 10, ... that takes at most `room` pixels."""
    lengths = [mantissa * 10**power for power in range(6) for mantissa in (1, 2, 5)]
    return max([length for length in lengths if length * pixels_per_cell <= room], default=1)


def draw_scale_bar(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    pixels_per_cell: float,
    room: int,
    theme: Theme,
    size: int,
) -> None:
    """A bar with its length in cells below it.

    Args:
        draw: Where.
        place: Its upper left corner.
        pixels_per_cell: Scale of the image.
        room: Pixels that it may be long.
        theme: Colours.
        size: Of the type.
    """
    x, y = place
    cells = scale_bar_cells(pixels_per_cell, room)
    thickness = max(2, size // 5)
    draw.rectangle((x, y, x + max(1, round(cells * pixels_per_cell)) - 1, y + thickness - 1), theme.ink)
    text = f"{cells} cell" + ("s" if cells > 1 else "")
    draw.text((x, y + thickness + 2), text, theme.ink, font(size))


def draw_legend(
    picture: Image.Image,
    place: tuple[int, int],
    length: int,
    view: View,
    top: float,
    theme: Theme,
    size: int,
) -> None:
    """A horizontal colour bar with its numbers below and what it measures to the left.

    Args:
        picture: Where.
        place: Upper left corner of the bar; the text ends before it.
        length: Of the bar, in pixels.
        view: Colours and numbers.
        top: The scale's.
        theme: Colours.
        size: Of the type.
    """
    x, y = place
    draw = ImageDraw.Draw(picture)
    thickness = max(8, size * 3 // 4)
    bar = view.bar(np.linspace(0, 1, length))
    picture.paste(Image.fromarray(np.repeat(bar[None], thickness, axis=0)), (x, y))
    draw.text((x - size // 2, y + thickness / 2), view.quantity, theme.ink, font(size), anchor="rm")
    for share, text in view.ticks(top):
        anchor = {0.0: "la", 1.0: "ra"}.get(share, "ma")
        draw.text((x + share * (length - 1), y + thickness + 2), text, theme.ink, font(size), anchor=anchor)
