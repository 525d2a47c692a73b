"""Results show themselves in a notebook."""

import base64
from dataclasses import replace
from pathlib import Path

from atheria import inline
from atheria.jobs.train import TrainedRun
from atheria.rollout import rollout


def embedded(html: str) -> bytes:
    return base64.b64decode(html.split("data:image/png;base64,")[1].split('"')[0])


def test_a_run_shows_its_losses_and_its_picture(in_run_folder: TrainedRun) -> None:
    html = in_run_folder._repr_html_()
    before, after = in_run_folder.untrained["eval/loss"], in_run_folder.best["eval/loss"]
    assert f"<tr><td>eval/loss</td><td>{before:.6g}</td><td>{after:.6g}</td></tr>" in html
    assert embedded(html) == (in_run_folder.folder / "pictures/rollout.png").read_bytes()


def test_a_rollout_shows_its_observables_and_its_film(in_run_folder: TrainedRun, tmp_path: Path) -> None:
    result = rollout(
        [f"law={in_run_folder.law}", "steps=4", "frames=2", "tracking=off", f"output={tmp_path}"]
    )
    html = result._repr_html_()
    first, last = (f"{result.observables['energy'][index].mean():.6g}" for index in (0, -1))
    assert "<tr><th></th><th>step 0</th><th>step 4</th></tr>" in html
    assert f"<tr><td>energy</td><td>{first}</td><td>{last}</td></tr>" in html
    assert "<td>fidelity</td>" in html
    assert embedded(html) == (result.folder / "strip.png").read_bytes()
    assert "<img" not in replace(result, folder=tmp_path / "elsewhere")._repr_html_()


def test_text_is_escaped(tmp_path: Path) -> None:
    assert inline.shown([["a<b"], ["&"]], tmp_path / "no.png") == (
        "<table><tr><th>a&lt;b</th></tr><tr><td>&amp;</td></tr></table>"
    )
