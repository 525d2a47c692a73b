"""Snapshots in files: a universe goes on elsewhere as if nothing had happened."""

import contextlib
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atheria_core import Engine, load_snapshot, save_snapshot

from .conftest import plain_torchscript

GO_ON = """
import json, sys
from atheria_core import Engine, load_snapshot

law, physics, snapshot = sys.argv[1:]
engine = Engine(d_state=2, threads=2)
engine.load_model(law, json.loads(physics))
engine.restore(load_snapshot(snapshot))
before = engine.step_count, engine.seed, engine.observables()
engine.step_native(5)
cells = [[part.view("f4").tobytes().hex() for part in engine.cells(u)] for u in range(2)]
print(json.dumps([before, engine.observables(), cells]))
"""


PHYSICS = {"gamma": 0.05, "epsilon": 1e-6, "fire_rate": 0.5, "normalise": "global"}


class Spreads(torch.nn.Module):
    """A law whose matter goes to its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = torch.nn.Parameter(
            0.3 * torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        )

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        around = torch.nn.functional.pad(psi, [1, 1, 1, 1], mode="circular")
        return torch.tanh(torch.nn.functional.conv2d(around, self.filters, groups=4))


def universe(folder: Path, kind: str) -> tuple[Path, Engine]:
    """A law, and an engine with two universes in the midst of it all."""
    path = plain_torchscript(Spreads(), folder / "spreads.pt")
    engine = Engine(d_state=2, threads=2)
    engine.load_model(path, PHYSICS)
    where = {"grid": (16, 24)} if kind == "grid" else {"grid": None, "extent": (40, 40)}
    engine.reset("particles", 2**63 + 1, universes=2, count=5, **where)
    engine.set_noise("depolarising", 0.2)
    engine.step_native(3)
    return path, engine


@pytest.fixture(params=["grid", "unbounded"])
def going(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Engine]:
    """Such a universe on a grid, and one without bounds."""
    return universe(tmp_path, request.param)


def test_another_process_goes_on_bit_for_bit(going: tuple[Path, Engine], tmp_path: Path) -> None:
    law, engine = going
    save_snapshot(engine.snapshot(), tmp_path / "deep/down/universe.npz")
    elsewhere = subprocess.run(
        [sys.executable, "-c", GO_ON, law, json.dumps(PHYSICS), tmp_path / "deep/down/universe.npz"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    before = [engine.step_count, engine.seed, engine.observables()]
    engine.step_native(5)
    cells = [[part.view("f4").tobytes().hex() for part in engine.cells(u)] for u in range(2)]
    assert json.loads(elsewhere.stdout) == [before, engine.observables(), cells]
    assert sum(len(found[0]) for found in cells) > 0


@pytest.mark.parametrize("through", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_a_snapshot_can_be_copied_and_pickled(going: tuple[Path, Engine], through: Callable) -> None:
    _, engine = going
    kept = through(engine.snapshot())
    engine.step_native(4)
    expected = engine.observables()
    engine.restore(kept)
    assert engine.step_count == 3
    engine.step_native(4)
    assert engine.observables() == expected


class Fades(torch.nn.Module):
    """A law that remembers."""

    def forward(self, psi: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        memory = 0.5 * memory + psi
        return -0.1 * memory, memory

    @torch.jit.export
    def initial_memory(self, universes: int, height: int, width: int) -> torch.Tensor:
        return torch.zeros(universes, 4, height, width)


def test_what_a_law_remembers_is_kept(tmp_path: Path) -> None:
    engine = Engine(d_state=2)
    engine.load_model(plain_torchscript(Fades(), tmp_path / "law.pt"))
    engine.reset("random", 0, (6, 10))
    engine.step_native(2)
    save_snapshot(engine.snapshot(), tmp_path / "universe.npz")
    engine.step_native(2)
    expected = engine.state()
    engine.set_state(expected)  # remembers nothing
    engine.restore(load_snapshot(tmp_path / "universe.npz"))
    engine.step_native(2)
    assert np.array_equal(engine.state(), expected)


def test_an_unbounded_vacuum_is_kept(tmp_path: Path) -> None:
    _, engine = universe(tmp_path, "unbounded")
    engine.reset("zeros", 0, None, 3)
    save_snapshot(engine.snapshot(), tmp_path / "universe.npz")
    engine.reset("random", 0, (8, 8))
    engine.restore(load_snapshot(tmp_path / "universe.npz"))
    assert [len(engine.cells(u)[0]) for u in range(3)] == [0, 0, 0]


def test_a_file_that_is_damaged_is_said(going: tuple[Path, Engine], tmp_path: Path) -> None:
    path = tmp_path / "universe.npz"
    save_snapshot(going[1].snapshot(), path)
    whole = path.read_bytes()
    load_snapshot(path)
    rng = np.random.default_rng(0)
    for length in [0, 1, 4, *rng.integers(len(whole), size=20)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"'{path}' is no snapshot, or damaged"):
            load_snapshot(path)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # names and dates in the file's frame do not matter
            load_snapshot(path)


def test_what_is_no_snapshot_is_said(tmp_path: Path) -> None:
    path = tmp_path / "universe.npz"
    with pytest.raises(
        ValueError, match=f"`path` must be a snapshot's file, got '{path}', which is not there"
    ):
        load_snapshot(path)
    np.savez(path, psi=np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(ValueError, match="is no snapshot of this version"):
        load_snapshot(path)
    path.write_bytes(pickle.dumps({"psi": 1}))
    with pytest.raises(ValueError, match="is no snapshot, or damaged"):
        load_snapshot(path)


def fewer_tiles(state: dict[str, Any]) -> None:
    state["counts"][0] -= 1


def the_same_tile_twice(state: dict[str, Any]) -> None:
    state["places"][1] = state["places"][0]


def a_tile_out_of_reach(state: dict[str, Any]) -> None:
    state["places"][0, 1] = 2**61


def more_cells_than_numbers(state: dict[str, Any]) -> None:
    state["masks"][0] = -1


def vacuum_where_matter_is(state: dict[str, Any]) -> None:
    state["cells"][0] = 0


def energies_of_others(state: dict[str, Any]) -> None:
    state["reference_energy"] = state["reference_energy"].repeat(2, axis=0)


def another_noise(state: dict[str, Any]) -> None:
    state["noise"] = "thunder"


def a_time_before_all(state: dict[str, Any]) -> None:
    state["step_count"] = -1


def another_kind(state: dict[str, Any]) -> None:
    state["kind"] = "cube"


def not_finite(state: dict[str, Any]) -> None:
    state["psi" if "psi" in state else "cells"].flat[3] = np.nan


def another_type(state: dict[str, Any]) -> None:
    name = "psi" if "psi" in state else "cells"
    state[name] = state[name].astype(np.float64)


def an_axis_less(state: dict[str, Any]) -> None:
    name = "psi" if "psi" in state else "cells"
    state[name] = state[name][0]


def a_column_less(state: dict[str, Any]) -> None:
    name = "psi" if "psi" in state else "cells"
    state[name] = np.ascontiguousarray(state[name][..., 1:])


def nothing_of_it(state: dict[str, Any]) -> None:
    state.pop("reference_energy")


def no_seed(state: dict[str, Any]) -> None:
    state.pop("seed")


OF_ALL = [
    energies_of_others, another_noise, a_time_before_all, another_kind, not_finite, another_type,
    an_axis_less, a_column_less, nothing_of_it, no_seed,
]  # fmt: skip
OF_TILES = [
    fewer_tiles, the_same_tile_twice, a_tile_out_of_reach, more_cells_than_numbers, vacuum_where_matter_is,
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, change) for kind in ("grid", "unbounded") for change in OF_ALL]
    + [("unbounded", change) for change in OF_TILES],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, kind: str, change: Callable) -> None:
    _, engine = universe(tmp_path, kind)
    kept = engine.snapshot()
    state = copy.deepcopy(kept.__getstate__())
    change(state)
    with pytest.raises(ValueError, match=r"snapshot|`state`|`name`|noise"):
        kept.__new__(type(kept)).__setstate__(state)
