"""Films: frames are drawn and encoded as they come, so a film of any length takes the memory of a few.

GIF is written by Pillow; MP4 (H.264, yuv420p, which browsers play) by PyAV, which brings its encoder and
comes with the extra ``film``.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from PIL import GifImagePlugin, Image, ImageDraw

from atheria.config import UserError
from atheria.files import atomically
from atheria.furniture import (
    DARK,
    draw_legend,
    draw_scale_bar,
    fitting_size,
    font,
    magnified,
    scale_bar_cells,
    text_width,
)
from atheria.views import Frame, View

FPS = 20
"""Frames a second; a GIF counts in hundredths of a second."""
SIDE = 512
"""Of the image in a film, about, in pixels."""
SETTLING = 8
"""Frames that a scale is chosen from."""
_NARROWEST = 256
_GREYS = 15  # and black
_GIF_END = b";"


class Encoder(Protocol):
    """Writes images of one size to a file."""

    def add(self, image: Image.Image) -> None:
        """Encodes one more."""

    def close(self) -> None:
        """Completes the file."""


def check_format(kind: str | None) -> None:
    """Raises UserError where the package is missing that writes films of a kind, ``mp4`` or ``gif``."""
    if kind == "mp4" and find_spec("av") is None:
        raise UserError("film=mp4 needs the package av: pip install 'atheria[film]'; or choose film=gif")


class Film:
    """A film of one universe, to be used as a context; without an error at its end, the file appears whole.

    The scale is the same in every frame and needs no second pass: it is `top`, or else what suits the first
    SETTLING frames, which are held back until it is known.

    Args:
        path: ``.gif`` or ``.mp4``.
        view: What is shown.
        title: What stands above.
        top: The value that is shown lightest; None for one that is found.
        side: The longer side of the image, about, in pixels.
    """

    def __init__(
        self, path: Path, view: View, title: str = "", top: float | None = None, side: int = SIDE
    ) -> None:
        check_format(path.suffix[1:])
        self.path = path
        self.frames = 0
        self._view = view
        self._title = title
        self._top = top
        self._side = side
        self._unfinished = path.with_name(f".unfinished-{path.name}")
        self._held: list[Frame] = []
        self._draw: Callable[[Frame], Image.Image] | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> "Film":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._release()
            if self._encoder is not None:
                self._encoder.close()
            if error is None and self.frames:
                atomically(self.path, self._unfinished.replace)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def add(self, frame: Frame) -> None:
        """Adds a frame; all have the same shape."""
        self.frames += 1
        self._held.append(frame)
        if self._draw is not None or self._top is not None or len(self._held) == SETTLING:
            self._release()

    def _release(self) -> None:
        if not self._held:
            return
        if self._draw is None:
            top = self._top if self._top is not None else self._view.top(self._held)
            self._draw = canvas(self._view, self._held[0], top, self._title, self._side)
        while self._held:  # each once, also where an interrupt comes between
            self._encode(self._held.pop(0))

    def _encode(self, frame: Frame) -> None:
        assert self._draw is not None
        image = self._draw(frame)
        if self._encoder is None:
            encoder = Gif if self.path.suffix == ".gif" else Mp4
            self._encoder = encoder(self._unfinished, image.size, self._view)
        self._encoder.add(image)


def canvas(
    view: View, first: Frame, top: float, title: str = "", side: int = SIDE
) -> Callable[[Frame], Image.Image]:
    """What draws the frames of a film: the image with step counter, scale bar and legend around it.

    Args:
        view: What is shown.
        first: A frame like all others.
        top: The value that is shown lightest.
        title: What stands above, beside the view's name.
        side: The longer side of the image, about, in pixels.
    """
    panel, pixels = magnified(view.image(first, top), side)
    width = max(panel.width, _NARROWEST)
    kind = max(9, min(14, width // 28))
    gap = kind // 2
    head, foot = kind + 2 * gap, 2 * kind + 3 * gap
    # An even number of pixels: yuv420p halves both sides for colour.
    size = (width + 2 * gap + (width % 2), panel.height + head + foot + (panel.height + head + foot) % 2)
    empty = Image.new("RGB", size, DARK.paper)
    draw = ImageDraw.Draw(empty)
    text = f"{title}, {view.name}" if title else view.name
    room = width - text_width("step 000000", kind) - gap
    draw.text((gap, gap), text, DARK.ink, font(fitting_size(text, kind, room)))
    corner = (gap + (width - panel.width) // 2, head)
    below = head + panel.height + gap
    bar = round(0.28 * width)
    bar_room = min(panel.width, round(0.3 * width))
    if scale_bar_cells(pixels, bar_room) * pixels <= bar_room:
        draw_scale_bar(draw, (gap, below + 2), pixels, bar_room, DARK, kind - 2)
    draw_legend(empty, (gap + width - bar, below), bar, view, top, DARK, kind - 2)

    def drawn(frame: Frame) -> Image.Image:
        picture = empty.copy()
        picture.paste(magnified(view.image(frame, top), side)[0], corner)
        place = (gap + width, gap)
        ImageDraw.Draw(picture).text(place, f"step {frame.step}", DARK.ink, font(kind), anchor="ra")
        return picture

    return drawn


class Gif:
    """A GIF that loops; one table of colours, the view's and some greys, serves all its frames.

    Pillow's own way to save many frames keeps them all until the last.

    Args:
        path: Where.
        size: Width and height in pixels.
        view: Whose colours are needed.
    """

    def __init__(self, path: Path, size: tuple[int, int], view: View) -> None:
        self._palette = _palette(view)
        blank = Image.new("P", size)
        blank.putpalette(self._palette.getpalette() or [])
        header, _ = GifImagePlugin.getheader(blank, info={"loop": 0, "optimize": False})
        self._file = path.open("wb")
        self._file.write(b"".join(header))

    def add(self, image: Image.Image) -> None:
        """Encodes one more."""
        indexed = image.quantize(palette=self._palette, dither=Image.Dither.NONE)
        self._file.write(b"".join(GifImagePlugin.getdata(indexed, duration=1000 // FPS)))

    def close(self) -> None:
        """Completes the file."""
        try:
            self._file.write(_GIF_END)
        finally:  # a file that stays open keeps its room on the disk, also where it has no name any more
            self._file.close()


class Mp4:
    """H.264 in MP4, 4:2:0, complete before its last byte is needed (faststart).

    Args:
        path: Where.
        size: Width and height in pixels, even.
        view: Of no consequence here.
    """

    def __init__(self, path: Path, size: tuple[int, int], view: View) -> None:
        import av

        # The look-ahead is what the encoder keeps of the film in memory.
        options = {"crf": "18", "preset": "fast", "x264-params": "rc-lookahead=10:threads=1"}
        self._av = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=FPS, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"

    def add(self, image: Image.Image) -> None:
        """Encodes one more."""
        frame = self._av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Completes the file."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _palette(view: View) -> Image.Image:
    """At most 256 colours: what the view uses, and greys from paper to ink for the text."""
    greys = np.linspace(DARK.paper, DARK.ink, _GREYS).round().astype(np.uint8)
    black = np.zeros((1, 3), np.uint8)
    table = np.concatenate([view.palette(255 - _GREYS), black, greys])
    image = Image.new("P", (1, 1))
    image.putpalette(table.tobytes())
    return image
