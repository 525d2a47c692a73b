"""The documentation's site builds, whole and from this machine alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install -e .[docs]")
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    alone = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        alone = []  # the system allows no namespace without network
    built = subprocess.run(
        [*alone, sys.executable, "-m", "mkdocs", "build", "--strict",
         "--site-dir", site],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    loaded = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//|<link[^>]+rel="?(?:stylesheet|preconnect|icon)'
        r'[^>]+href="(?:https?:)?//|url\(["\']?(?:https?:)?//'
    )
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 15
    for path in files:
        found = loaded.search(path.read_text())
        assert found is None, f"{path}: {found.group()}"
    reference = (site / "reference/physics.html").read_text()
    assert 'id="atheria.observables.measure"' in reference
    assert 'id="atheria.spreading.damage_spreading"' in reference
    assert 'id="atheria_core.engine.Engine.load_model"' in (site / "reference/engine.html").read_text()
