"""Writes the pictures of the viewer in docs/: ``python tools/screenshots.py [FOLDER]``."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from atheria.export import export  # noqa: E402
from benchmarks.viewer import BROWSER, serving  # noqa: E402

SIZES = {"laptop": (1366, 768, "dark"), "phone": (390, 844, "light")}


def main(folder: Path) -> None:
    """Shows an untrained quantum walk, whose waves are something to see."""
    with tempfile.TemporaryDirectory() as scratch:
        law = Path(scratch) / "quantum_walk.pt"
        export(["model=quantum_walk", "model.d_state=5", f"output={law}", "physics.gamma=0"])
        start = ["grid=128", "initial_state=particles", "initial_state.count=6"]
        with (
            serving([f"law={law.name}", *start], law.parent) as address,
            sync_playwright() as playwright,
        ):
            chromium = playwright.chromium.launch(**BROWSER)
            for name, (width, height, scheme) in SIZES.items():
                page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(address)
                page.keyboard.press("r")
                page.keyboard.press("2" if name == "laptop" else "1")
                page.wait_for_timeout(3_500)  # 100 steps, and rates that are measured
                page.screenshot(path=folder / f"viewer_{name}.png")
                page.close()
            chromium.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs")
