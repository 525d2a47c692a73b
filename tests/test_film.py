"""Colours, views, strips and films: what is seen is what is there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from atheria import colours, film, furniture, strip, views
from atheria.config import UserError
from atheria.film import Film
from atheria.jobs.train import TrainedRun
from atheria.rollout import rollout
from atheria.views import Frame

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
DICHROMATS = {  # Machado, Oliveira & Fernandes (2009), severity 1, on linear sRGB
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}  # fmt: skip


def oklab(rgb: np.ndarray, eye: str | None = None) -> np.ndarray:
    """What an eye sees of sRGB bytes, in Oklab."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    if eye:
        linear = (linear @ np.array(DICHROMATS[eye]).T).clip(0, 1)
    return np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T


def point(y: int, x: int, value: complex = 1, height: int = 6, width: int = 10) -> np.ndarray:
    """A field of two components with one occupied cell."""
    psi = np.zeros((4, height, width), np.float32)
    psi[0, y, x], psi[2, y, x] = value.real, value.imag
    return psi


@pytest.mark.parametrize("eye", [None, *DICHROMATS])
def test_size_is_lightness_to_every_eye(eye: str | None) -> None:
    share = np.linspace(0, 1, 65)
    for table in (colours.sequential(share), colours.signed(share), colours.signed(-share)):
        assert (np.diff(oklab(table, eye)[:, 0]) > -0.002).all()
        assert np.ptp(oklab(table, eye)[:, 0]) > 0.6


@pytest.mark.parametrize("eye", [None, *DICHROMATS])
def test_a_sign_is_told_by_every_eye_and_weighs_nothing(eye: str | None) -> None:
    share = np.linspace(0.3, 1, 15)
    above, below = oklab(colours.signed(share), eye), oklab(colours.signed(-share), eye)
    assert (np.hypot(*(above - below)[:, 1:].T) > 0.07).all()
    if eye is None:
        assert np.abs(above[:, 0] - below[:, 0]).max() < 0.01


def test_phases_are_equally_light_and_their_circle_closes() -> None:
    angle = np.linspace(-np.pi, np.pi, 73)
    lab = oklab(colours.phase(angle))
    assert np.ptp(lab[:, 0]) < 0.005
    assert np.ptp(np.hypot(lab[:, 1], lab[:, 2])) < 0.005
    assert np.allclose(np.arctan2(lab[:, 2], lab[:, 1])[1:-1], angle[1:-1], atol=0.03)
    assert np.array_equal(colours.phase(np.pi), colours.phase(-np.pi))
    assert colours.phase(0.0, 0.0).tolist() == [0, 0, 0]


def test_nothing_is_black_and_nan_is_no_matter() -> None:
    assert colours.sequential(np.array([0.0, np.nan])).max() < 5
    assert colours.signed(np.array(0.0)).max() < 12
    assert colours.phase(np.array(np.nan), np.array(np.nan)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", views.VIEWS)
def test_a_cell_is_where_it_is(name: str) -> None:
    view = views.VIEWS[name]()
    empty = Frame(0, point(2, 7, 0))
    view.values(empty)  # what `difference` is to
    image = view.image(Frame(5, point(2, 7), empty.psi), top=1.0)
    lit = np.argwhere(image.max(axis=2) > 120)
    assert lit.tolist() == [[2, 7]]
    assert image.shape == ((13, 21, 3) if name == "components" else (6, 10, 3))


def test_known_cells_have_known_colours() -> None:
    frame = Frame(1, point(0, 0, 1j), point(0, 0, 2))
    assert views.Density().image(frame, 4.0)[0, 0].tolist() == colours.sequential(np.array(0.5)).tolist()
    assert views.Phase().image(frame, 1.0)[0, 0].tolist() == colours.phase(np.array(np.pi / 2)).tolist()
    assert views.Flow().values(frame)[0, 0] == pytest.approx(1 - 4)
    assert views.Flow().image(frame, 3.0)[0, 0].tolist() == colours.signed(np.array(-1.0)).tolist()
    assert not views.Flow().values(Frame(0, point(0, 0))).any()
    components = views.Components().image(Frame(0, point(0, 0, -1 + 1j)), 1.0)
    assert components[0, 0].tolist() == colours.signed(np.array(-1.0)).tolist()
    assert components[7, 0].tolist() == colours.signed(np.array(1.0)).tolist()  # Im, below the gutter
    difference = views.Difference(point(0, 0, 1j))
    assert difference.values(Frame(0, point(0, 0, 1)))[0, 0] == pytest.approx(2**0.5)


def test_the_sum_of_the_components_has_the_phase() -> None:
    psi = np.zeros((4, 1, 1), np.float32)
    psi[:, 0, 0] = [1, 1, 1, -1]  # (1 + i) + (1 - i) = 2
    assert views.Phase().image(Frame(0, psi), 4.0)[0, 0].tolist() == colours.phase(np.array(0.0)).tolist()


def test_a_few_hot_cells_hide_no_other() -> None:
    psi = np.ones((2, 40, 40), np.float32)
    psi[:, 0, 0] = 100
    assert views.Density().top([Frame(0, psi)]) == pytest.approx(2)
    psi[:, 0, 0] = np.inf
    assert views.Density().top([Frame(0, psi)]) == pytest.approx(2)
    assert views.Density().top([Frame(0, 0 * point(0, 0))]) > 0


@pytest.mark.parametrize(
    ("pixels", "room", "cells"), [(8.0, 100, 10), (8.0, 60, 5), (8.0, 16, 2), (0.5, 100, 200), (30.0, 10, 1)]
)
def test_a_scale_bar_is_as_long_as_it_says(pixels: float, room: int, cells: int) -> None:
    assert furniture.scale_bar_cells(pixels, room) == cells
    picture = Image.new("RGB", (300, 40))
    draw = furniture.ImageDraw.Draw(picture)
    furniture.draw_scale_bar(draw, (3, 5), pixels, room, furniture.DARK, 12)
    row = np.asarray(picture)[5, :, 0] > 0
    assert row.sum() == round(cells * pixels)
    assert row[3]


def test_a_strip_shows_every_frame_at_its_place() -> None:
    frames = [Frame(0, point(0, 0)), Frame(9, point(5, 9))]
    picture = np.asarray(strip.strip(frames, "test", [views.Density()], side=60))
    lightest = (picture == colours.sequential(np.array(1.0))).all(axis=2)
    lit = np.argwhere(lightest[:, : 2 * (60 + strip._GAP) + 31])  # the legend is to the right of both
    assert len(lit) == 2 * 36  # cells of 6 x 6 pixels
    first, second = lit[lit[:, 1] < 60], lit[lit[:, 1] > 60]
    assert second[:, 0].min() - first[:, 0].min() == 5 * 6
    assert second[:, 1].min() - first[:, 1].min() == 9 * 6 + 60 + strip._GAP


def frames(count: int, side: int = 16) -> list[Frame]:
    return [Frame(10 * i, point(i % side, (3 * i) % side, 1, side, side)) for i in range(count)]


def decoded(path: Path) -> list[np.ndarray]:
    if path.suffix == ".gif":
        image = Image.open(path)
        found = []
        for index in range(image.n_frames):
            image.seek(index)
            found.append(np.asarray(image.convert("RGB")))
        return found
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.streams.video[0].average_rate) == film.FPS
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(("count", "top"), [(1, None), (3, None), (3, 1.0), (film.SETTLING, 1.0), (30, None)])
@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_film_has_every_frame_at_its_place(
    kind: str, count: int, top: float | None, tmp_path: Path
) -> None:
    path = tmp_path / f"film.{kind}"
    with Film(path, views.Density(), "test", top=top, side=320) as written:
        for frame in frames(count):
            written.add(frame)
    images = decoded(path)
    assert len(images) == count == written.frames
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    for index, image in enumerate(images):
        field = image[21 : 21 + 16 * 20, 5:]  # below a line of type, with margins
        middle = np.argwhere(field[:, :, 0] > 200).mean(axis=0)
        assert (middle // 20).tolist() == [index % 16, (3 * index) % 16]


def test_a_gif_loops_at_the_rate_that_films_have(tmp_path: Path) -> None:
    with Film(tmp_path / "film.gif", views.Phase()) as written:
        for frame in frames(3):
            written.add(frame)
    image = Image.open(tmp_path / "film.gif")
    assert image.info["loop"] == 0
    image.seek(1)
    assert image.info["duration"] == 1000 / film.FPS


def test_the_step_is_counted(tmp_path: Path) -> None:
    """Two frames of the same field differ in the counter alone."""
    draw = film.canvas(views.Density(), frames(1)[0], 1.0, side=320)
    one, other = (np.asarray(draw(Frame(step, frames(1)[0].psi))) for step in (1, 2))
    changed = np.argwhere((one != other).any(axis=2))
    assert len(changed) > 0
    assert changed[:, 0].max() < 25
    assert changed[:, 1].min() > 250


def test_a_scale_is_that_of_the_first_frames_or_as_given(tmp_path: Path) -> None:
    class Seen(views.Density):
        def __init__(self) -> None:
            self.tops = set()

        def image(self, frame: Frame, top: float) -> colours.Colours:
            self.tops.add(top)
            return super().image(frame, top)

    def filmed(top: float | None) -> list[float]:
        view = Seen()
        with Film(tmp_path / "film.gif", view, top=top) as written:
            for step in range(20):
                written.add(Frame(step, np.full((2, 4, 4), step + 1, np.float32)))
        return list(view.tops)

    assert filmed(3.0) == [3.0]
    assert filmed(None) == pytest.approx([2 * film.SETTLING**2])


def test_a_film_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    path.write_bytes(b"an earlier one")
    with pytest.raises(KeyboardInterrupt), Film(path, views.Density()) as written:  # noqa: PT012
        for frame in frames(20):
            written.add(frame)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"an earlier one"
    assert len(list(tmp_path.iterdir())) == 1


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from atheria.film import Film
from atheria.views import Frame, Phase
rng = np.random.default_rng(0)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with Film(Path(sys.argv[1]), Phase(), side=96) as film:
    for step in range(int(sys.argv[2])):
        film.add(Frame(step, rng.normal(size=(4, 96, 96)).astype(np.float32)))
        if step == 150: settled = peak()
print(peak() - settled)
"""


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_long_film_takes_no_more_memory_than_a_short_one(kind: str, tmp_path: Path) -> None:
    """1850 more frames would be 1850 * 0.14 MB of fields, or 1850 * 0.1 MB of images."""
    pytest.importorskip("av")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / f"film.{kind}")]
    grown = float(subprocess.run([*command, "2000"], capture_output=True, text=True, check=True).stdout)
    assert grown < 20  # MB


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"film=mp4 needs the package av: pip install 'atheria\[film\]'"):
        film.check_format("mp4")
    film.check_format("gif")


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_rollout_is_filmed_and_logged(kind: str, in_run_folder: TrainedRun) -> None:
    if kind == "mp4":
        pytest.importorskip("av")
    options = [f"run_id={in_run_folder.run_id}", "steps=25", f"film={kind}", "film_every=10", "view=flow"]
    result = rollout(options)
    assert result.film == result.folder / f"film.{kind}"
    assert len(decoded(result.film)) == 3  # steps 0, 10, 20
    client = MlflowClient(in_run_folder.tracking_uri)
    stored = {file.path for file in client.list_artifacts(result.run_id, "pictures")}
    assert stored == {"pictures/strip.png", f"pictures/film.{kind}"}
    by_step = {frame.step: frame for frame in rollout([*options, "frames=26"]).frames}
    assert by_step[0].before is None
    for step in (1, 20):
        assert np.array_equal(by_step[step].before, by_step[step - 1].psi)


def test_a_film_changes_no_number(in_run_folder: TrainedRun) -> None:
    options = [f"law={in_run_folder.law}", "steps=12", "noise=phase_flip", "noise.level=0.1"]
    plain = rollout(options)
    assert plain.film is None
    filmed = rollout([*options, "film=gif", "film_every=1", "view=flow"])
    assert np.array_equal(filmed.psi, plain.psi)
    assert np.array_equal(filmed.observables["energy"], plain.observables["energy"])
