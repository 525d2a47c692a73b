"""Imports go one way: a module imports only from lower floors; heavy or foreign things in one place."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = [
    {"atheria_core._core"},  # the extension; the engine's face in Python, `atheria_core`, is high above
    {"atheria", "atheria.conf", "atheria.config", "atheria.philox", "atheria.field", "atheria.progress",
     "atheria.probability", "atheria.endings", "atheria.provenance", "atheria.probe", "atheria.colours",
     "atheria.inline", "atheria.tables", "atheria.collecting"},
    {"atheria.files", "atheria.registry", "atheria.initial_state", "atheria.coherence", "atheria.symmetries",
     "atheria.curriculum", "atheria.phases", "atheria.pool", "atheria.launch", "atheria.sweeps",
     "atheria.sweeps.space", "atheria.views", "atheria.refusals"},
    {"atheria.proven", "atheria.furniture", "atheria.figures", "atheria.chart"},
    {"atheria.laws", "atheria.losses", "atheria.noise", "atheria.artifact", "atheria.film", "atheria.strip",
     "atheria.journal", "atheria.stores", "atheria.foreign", "atheria.patterns", "atheria.checkpoint",
     "atheria.optimizers", "atheria.ranks", "atheria.sweeps.points", "atheria.scattered",
     "atheria.vacuum"},
    {"atheria.cli", "atheria.laws.blocks", "atheria.physics", "atheria.tracking", "atheria.law_cache",
     "atheria.observables", "atheria.keeping", "atheria.history", "atheria.sweeps.trials",
     "atheria.sweeps.report", "atheria.sweeps.launcher"},
    {"atheria.laws.mlp", "atheria.laws.unet", "atheria.laws.snn_unet", "atheria.laws.deep_qca",
     "atheria.laws.nca", "atheria.laws.quantum_walk", "atheria.trainer", "atheria.transfer",
     "atheria.tangents", "atheria.spreading", "atheria.delivery", "atheria.fetch",
     "atheria.exporting", "atheria.sweeps.search", "atheria.sweeps.pictures", "atheria.measuring",
     "atheria.comparison", "atheria.report"},
    {"atheria.runs", "atheria.courier", "atheria_core", "atheria.responses", "atheria.watch"},
    {"atheria.resume", "atheria.rolling"},
    {"atheria.laws.unet_product", "atheria.laws.unet_unitary", "atheria.laws.unet_convlstm",
     "atheria.engine", "atheria.jobs", "atheria.jobs.train", "atheria.jobs.export", "atheria.jobs.rollout",
     "atheria.jobs.sync", "atheria.jobs.promote", "atheria.jobs.cache", "atheria.jobs.evaluate",
     "atheria.jobs.ui"},
    {"atheria.sweeps.worker"},
    {"atheria.sweeps.forkable"},
    {"atheria.viewer", "atheria.viewer.commands", "atheria.viewer.palettes", "atheria.viewer.gate",
     "atheria.viewer.history", "atheria.viewer.choices"},
    {"atheria.viewer.pictures", "atheria.viewer.universe"},
    {"atheria.viewer.simulation"},
    {"atheria.viewer.session"},
    {"atheria.viewer.client"},
    {"atheria.viewer.server"},
    {"atheria.jobs.view"},
    {"atheria.sweeps.local", "atheria.sweeps.slurm", "atheria.sweeps.on_ray"},
    {"atheria.sweeps.launchers"},
    {"atheria.sweeps.plan"},
    {"atheria.sweeps.parent"},
    {"atheria.jobs.sweep"},
    {"atheria.train", "atheria.export", "atheria.rollout", "atheria.sync", "atheria.promote",
     "atheria.cache", "atheria.compat", "atheria.evaluate", "atheria.view", "atheria.ui"},
]  # fmt: skip

FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}


def sources() -> dict[str, Path]:
    found = {}
    for file in (ROOT / "atheria").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    for file in (ROOT / "engine_cpp/atheria_core").glob("*.py"):
        found[f"atheria_core/{file.name}"] = file
    return found


def imports(file: Path) -> set[str]:
    """Modules of the project that a file imports, early or late; not those for type checking alone."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("module", sources())
def test_imports_go_down(module: str) -> None:
    floor = FLOOR[module.partition("/")[0]]
    for target in imports(sources()[module]) & set(FLOOR):
        if target in module.rpartition(".")[0].split("/"):
            continue  # the package that the module is in
        assert FLOOR[target] < floor or target == "atheria.laws", f"{module} imports {target}"


def test_the_extension_comes_without_the_face_of_the_engine() -> None:
    """Else `atheria_core._core` were no floor of its own."""
    code = "import sys, atheria.philox; sys.exit('atheria_core.engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_tracking_imports_mlflow() -> None:
    users = {
        m for m, file in sources().items() if re.search(r"^\s*(from|import) mlflow", file.read_text(), re.M)
    }
    assert users == {"atheria.tracking"}


def test_only_the_bindings_know_python() -> None:
    files = [*(ROOT / "engine_cpp").glob("*.?pp")]
    assert {f.name for f in files if "nanobind" in f.read_text()} == {"bindings.cpp", "arrays.hpp"}


def test_cpp_includes_go_down() -> None:
    floors = [
        {
            "of_process.hpp",
            "philox.hpp",
            "field.hpp",
            "kernels/kernels.hpp",
            "pages.hpp",
            "integers.hpp",
            "text.hpp",
            "docstrings.hpp",
        },
        {"numbers.hpp", "parallel.hpp", "winograd_weights.hpp"},
        {
            "physics.hpp",
            "noise.hpp",
            "initial_state.hpp",
            "observables.hpp",
            "tiles.hpp",
            "planes.hpp",
            "device_draws.hpp",
            "wavefront.hpp",
        },
        {"program.hpp", "vacuum.hpp", "device_noise.hpp", "evaluation.hpp"},
        {"profile.hpp", "lowering.hpp", "moments.hpp"},
        {"region.hpp"},
        {"spatial.hpp", "channels_last.hpp", "neighbours.hpp", "filters.hpp"},
        {"sweep.hpp", "region_builder.hpp", "division.hpp"},
        {"workspace.hpp"},
        {"plan.hpp", "law.hpp"},
        {"region_cells.hpp", "recorded_step.hpp"},
        {"compiled_law.hpp"},
        {"law.cpp", "universe.hpp", "scattered.hpp"},
        {"cell_step.cpp", "window_step.cpp", "grid.hpp", "unbounded.hpp"},
        {"engine.hpp"},
        {"arrays.hpp"},
        {"bindings.cpp"},
    ]
    floor = {name: index for index, names in enumerate(floors) for name in names}
    for file in (ROOT / "engine_cpp").glob("*.?pp"):
        own = floor.get(file.name, floor.get(file.with_suffix(".hpp").name, 0))
        for target in re.findall(r'#include "(.*)"', file.read_text()):
            assert floor[target] < own or target == file.with_suffix(".hpp").name, (file.name, target)
