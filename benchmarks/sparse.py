"""The unbounded universe against dense grids and against loops over cells: `rollout.py` calls this.

    python benchmarks/sparse.py        # writes the weights anew, sparse_laws.npz, the same from the same seed

The law is a `deep_qca` of 4 components and 32 channels without bias, above a vacuum threshold of 0.2. Two
last layers: *lives*, under which a cell alone stays, what it proposes to its neighbours being below the
threshold, and cells in pairs turn each other for ever; and *spreads*, under which a cell takes its
surroundings.
"""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from peers import Contender, Ours, RefusedError, engine_of
from torch import Tensor

from atheria.config import PhysicsConfig
from atheria.laws import Law, build

WEIGHTS = Path(__file__).with_name("sparse_laws.npz")
SEED = 106
"""Of the weights: of 200 seeds one whose proposals differ least between directions of the input."""
LAST_LAYER = {"lives": 0.07, "spreads": 0.3}
D_STATE, HIDDEN = 4, 32
PHYSICS = PhysicsConfig(gamma=0.01, epsilon=0.2, normalise="cell", fire_rate=1.0, boundary="torus")
REST = 0.02
SHORT, TURNS_OF_SHORT_ONES = 0.02, 5
"""Seconds: a turn of less is told by a moment's noise of the machine, and taken several times."""
MARGIN = 64
"""Cells without matter at a window's edge: dense and unbounded agree while nothing crosses it."""
OFFSETS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])

Numbers = dict[str, Any]
Cells = tuple[np.ndarray, np.ndarray]
"""Coordinates (n, 2) as (x, y), int64, and amplitudes (n, d), complex64."""


def write_weights() -> None:
    draw = np.random.default_rng(SEED).normal
    channels = 2 * D_STATE
    first = draw(size=(HIDDEN, channels)) / np.sqrt(channels)
    middle = 1.3 * draw(size=(HIDDEN, HIDDEN)) / np.sqrt(HIDDEN)
    last = draw(size=(channels, HIDDEN)) / np.sqrt(HIDDEN)
    arrays = {"first": first, "middle": middle, "last": last}
    np.savez(WEIGHTS, **{name: array.astype(np.float32) for name, array in arrays.items()})


def sparse_law(kind: str) -> Law:
    """The law with the committed weights, ``lives`` or ``spreads``."""
    model = {"name": "deep_qca", "d_state": D_STATE, "hidden_channels": HIDDEN, "bias": False}
    law = build(model, "torus").eval()
    law.model = model
    net = law.processing_net
    with np.load(WEIGHTS) as arrays, torch.no_grad():
        # The first of the eight copies of a channel's sum stands for all.
        net[0].weight.zero_()[:, ::8, 0, 0] = torch.from_numpy(arrays["first"])
        net[2].weight[:, :, 0, 0] = torch.from_numpy(arrays["middle"])
        net[4].weight[:, :, 0, 0] = LAST_LAYER[kind] * torch.from_numpy(arrays["last"])
    return law


def scattered(count: int, side: int, margin: int = MARGIN, pairs: bool = True) -> Cells:
    """Cells anywhere in a square, half of them alone, half beside another one: the same at every call."""
    generator = np.random.default_rng(0)
    places: dict[tuple[int, int], None] = {}
    while len(places) < count:
        x, y = (int(value) for value in generator.integers(margin, side - margin, 2))
        places[x, y] = None
        if pairs and len(places) < count // 2:
            places[x + 1, y + int(generator.integers(-1, 2))] = None
    coordinates = np.array([*places][:count], np.int64)
    amplitudes = generator.normal(size=(count, 2, D_STATE))
    amplitudes /= np.sqrt(np.square(amplitudes).sum(axis=(1, 2), keepdims=True))
    return coordinates, (amplitudes[:, 0] + 1j * amplitudes[:, 1]).astype(np.complex64)


def clustered(count: int, side: int) -> Cells:
    """The same number of cells in the middle 64 x 64."""
    coordinates, amplitudes = scattered(count, 64, margin=0, pairs=False)
    return coordinates + (side - 64) // 2, amplitudes


def to_field(cells: Cells, side: int) -> Tensor:
    """(1, 2d, side, side)."""
    (x, y), amplitudes = cells[0].T, cells[1]
    psi = torch.zeros(1, 2 * D_STATE, side, side)
    psi[0, :, y, x] = torch.from_numpy(np.concatenate([amplitudes.real, amplitudes.imag], axis=1).T)
    return psi


def to_cells(psi: np.ndarray) -> Cells:
    """The occupied cells of a field (1, 2d, H, W)."""
    y, x = np.nonzero(psi[0].any(axis=0))
    re, im = np.split(psi[0][:, y, x].T, 2, axis=1)
    return np.stack([x, y], axis=1), (re + 1j * im).astype(np.complex64)


def ordered(cells: Cells) -> Cells:
    order = np.lexsort(cells[0].T)
    return cells[0][order], cells[1][order]


def difference(ours: Cells, theirs: Cells) -> Numbers:
    """Between two universes: cells that only one of them has, and the largest difference of the others."""
    known = {tuple(place): amplitudes for place, amplitudes in zip(ours[0].tolist(), ours[1], strict=True)}
    errors = [0.0]
    only = 0
    for place, amplitudes in zip(theirs[0].tolist(), theirs[1], strict=True):
        if (mine := known.pop(tuple(place), None)) is None:
            only += 1
        else:
            errors.append(float(np.abs(mine - amplitudes).max()))
    return {"cells_of_one_only": only + len(known), "error": max(errors)}


class Cellular:
    """Steps scattered cells.

    Attributes:
        name: As the tables call it.
        evaluated: Cells that each of the last run's steps evaluated the law at, where it knows.
    """

    name: ClassVar[str]
    evaluated: int | None = None

    def prepare(self, law: Law, physics: PhysicsConfig, cells: Cells, side: int) -> None:
        """Raises RefusedError where it cannot run this."""
        raise NotImplementedError

    def restart(self) -> None:
        """Back to the cells of `prepare`."""
        raise NotImplementedError

    def run(self, steps: int) -> None:
        """Steps."""
        raise NotImplementedError

    def cells(self) -> Cells:
        """The occupied cells."""
        raise NotImplementedError


class Unbounded(Cellular):
    """The engine's unbounded universe."""

    name = "Atheria, unbounded"

    def prepare(self, law: Law, physics: PhysicsConfig, cells: Cells, side: int) -> None:
        self.engine = engine_of(law, physics, (64, 64))
        self.start = cells
        try:
            self.restart()
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise RefusedError(f"this build of the engine has no unbounded universe: {error}") from None

    def restart(self) -> None:
        self.engine.reset("zeros", 0, None)
        self.engine.set_cells(*self.start)

    def run(self, steps: int) -> None:
        self.engine.step_native(steps)

    def cells(self) -> Cells:
        coordinates, amplitudes = self.engine.cells()
        return coordinates, amplitudes

    @property
    def evaluated(self) -> int:  # type: ignore[override]
        """Of the last step."""
        return int(self.engine.info()["evaluated_cells"])


class Dense(Cellular):
    """Any contender on a grid that holds all cells."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.name = f"{contender.name}, dense"  # type: ignore[misc]

    def prepare(self, law: Law, physics: PhysicsConfig, cells: Cells, side: int) -> None:
        self.contender.prepare(law, physics, to_field(cells, side))
        self.evaluated = side * side
        self.stepped = 0

    def restart(self) -> None:
        """Goes on instead: a step takes a dense grid as long whatever it holds."""

    def run(self, steps: int) -> None:
        self.contender.run(steps)

    def cells(self) -> Cells:
        return to_cells(self.contender.field())


class Gathered(Cellular):
    """PyTorch on gathered cells: sorted keys, a binary search for neighbours, the law on all at once."""

    name = "PyTorch, cells gathered"
    _row = 1 << 31

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def prepare(self, law: Law, physics: PhysicsConfig, cells: Cells, side: int) -> None:
        convs = [law.processing_net[index].weight.detach()[:, :, 0, 0] for index in (0, 2, 4)]
        convs[0] = convs[0].reshape(HIDDEN, -1, 8).sum(dim=2)
        self.weights = [weight.T.contiguous().to(self.dtype) for weight in convs]
        self.physics = physics
        offsets = OFFSETS[np.abs(OFFSETS).sum(axis=1) > 0]
        self.offsets = torch.from_numpy(offsets[:, 0] * self._row + offsets[:, 1])
        (x, y), amplitudes = cells[0].T, cells[1]
        keys = torch.from_numpy(y * self._row + x)
        order = keys.argsort()
        parts = torch.from_numpy(np.concatenate([amplitudes.real, amplitudes.imag], axis=1))
        self.start = keys[order], parts[order].to(self.dtype)
        self.restart()

    def restart(self) -> None:
        self.keys, self.psi = self.start

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        keys = self.keys
        places = torch.unique(torch.cat([keys, (keys[:, None] + self.offsets).flatten()]))
        x = self._look_up(places[:, None] + self.offsets).sum(dim=1)
        for index, weight in enumerate(self.weights):
            x = F.elu(x) @ weight if index else x @ weight
        phi = (1 - self.physics.gamma) * self._look_up(places) + x
        norm = torch.linalg.vector_norm(phi, dim=1)
        kept = norm > self.physics.epsilon
        self.evaluated = len(places)
        self.keys, self.psi = places[kept], phi[kept] / norm[kept, None]

    def _look_up(self, places: Tensor) -> Tensor:
        found = torch.searchsorted(self.keys, places).clamp_(max=len(self.keys) - 1)
        return self.psi[found] * (self.keys[found] == places).unsqueeze(-1)

    def cells(self) -> Cells:
        x, y = self.keys % self._row, self.keys // self._row
        re, im = self.psi.numpy().copy().T.reshape(2, D_STATE, -1)
        return torch.stack([x, y], dim=1).numpy(), (re + 1j * im).T.astype(np.complex64)


class Loop(Cellular):
    """A Python loop over a dictionary of cells: the law on the 3 x 3 cells around each one, by itself."""

    name = "Python loop over cells"

    def prepare(self, law: Law, physics: PhysicsConfig, cells: Cells, side: int) -> None:
        self.law, self.physics = law, physics
        parts = torch.from_numpy(np.concatenate([cells[1].real, cells[1].imag], axis=1))
        self.start = dict(zip(map(tuple, cells[0].tolist()), parts, strict=True))
        self.restart()

    def restart(self) -> None:
        self.field = dict(self.start)

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        around = [(dx, dy) for dy, dx in OFFSETS.tolist()]
        active = {(x + dx, y + dy) for x, y in self.field for dx, dy in around}
        vacuum = torch.zeros(2 * D_STATE)
        following = {}
        for x, y in active:
            patch = torch.stack([self.field.get((x + dx, y + dy), vacuum) for dx, dy in around], dim=1)
            delta = self.law(patch.view(1, -1, 3, 3))[0, :, 1, 1]
            phi = (1 - self.physics.gamma) * self.field.get((x, y), vacuum) + delta
            norm = float(phi.norm())
            if norm > self.physics.epsilon:
                following[x, y] = phi / norm
        self.evaluated = len(active)
        self.field = following

    def cells(self) -> Cells:
        parts = torch.stack([*self.field.values()]).numpy()
        re, im = np.split(parts, 2, axis=1)
        return np.array([*self.field], np.int64), (re + 1j * im).astype(np.complex64)


def take_turns(
    contenders: list[Cellular], steps: dict[str, int], rounds: int, law: Law, cells: Cells, side: int
) -> Numbers:
    """Times of a step of each contender in rounds, with what it evaluates and how it differs.

    Results are compared after the fewest steps that any contender is given, with those of gathered cells in
    float64; cells that a rounding takes over the threshold are counted.
    """
    ready: list[Cellular] = []
    found: Numbers = {}
    checked = min(steps.values())
    reference = Gathered(torch.float64)
    reference.prepare(law, PHYSICS, cells, side)
    reference.run(checked)
    expected = reference.cells()
    for contender in contenders:
        try:
            contender.prepare(law, PHYSICS, cells, side)
            contender.run(checked)
        except RefusedError as refused:
            found[contender.name] = {"left_out": str(refused)}
            continue
        reached = contender.cells()
        found[contender.name] = difference(reached, expected) | {
            "steps_compared": checked, "steps_a_turn": steps[contender.name], "seconds": [],
        }  # fmt: skip
        ready.append(contender)
    for _ in range(rounds):
        for contender in ready:
            count = steps[contender.name]
            for _ in range(TURNS_OF_SHORT_ONES):
                contender.restart()
                time.sleep(REST)
                began = time.perf_counter()
                contender.run(count)
                spent = time.perf_counter() - began
                found[contender.name]["seconds"].append(spent / count)
                if spent > SHORT:
                    break
    for contender in ready:
        measured = found[contender.name]
        seconds = measured.pop("seconds")
        measured |= {"minimum_ms": 1e3 * min(seconds), "median_ms": 1e3 * median(seconds)}
        evaluated = contender.evaluated
        if not isinstance(contender, Dense):
            measured["occupied"] = len(contender.cells()[0])
            evaluated = evaluated_cells(contender, steps[contender.name])
        if evaluated:
            measured["evaluated"] = evaluated
            measured["ns_per_evaluated_cell"] = 1e6 * measured["minimum_ms"] / evaluated
    del ready
    gc.collect()
    return found


def evaluated_cells(contender: Cellular, steps: int) -> float:
    """Mean over the steps of a run, of cells evaluated; from a second run, a step at a time."""
    if isinstance(contender, Loop):  # slow, and its number hardly changes
        return float(contender.evaluated or 0)
    contender.restart()
    total = 0
    for _ in range(steps):
        contender.run(1)
        total += contender.evaluated or 0
    return total / steps


def dense(peers: list[type[Contender]]) -> list[Cellular]:
    return [Dense(peer()) for peer in peers if not peer.missing()]


def fastest(measured: Numbers, among: Callable[[str], bool]) -> str | None:
    """The name of the least minimum of those with the same result."""
    times = {
        name: numbers["minimum_ms"]
        for name, numbers in measured.items()
        if among(name) and "minimum_ms" in numbers and numbers["error"] < 1e-3
    }
    return min(times, key=times.__getitem__) if times else None


def occupancy(law: Law, cells: Cells, steps: list[int]) -> dict[str, int]:
    """Occupied cells after so many steps."""
    contender = Gathered()
    contender.prepare(law, PHYSICS, cells, 0)
    counts, done = {}, 0
    for step in steps:
        contender.run(step - done)
        done = step
        counts[str(step)] = len(contender.keys)
    return counts


def flatness(sides: list[int], count: int, steps: int, rounds: int) -> list[Numbers]:
    """The same cells spread over larger and larger squares: time of a step, and memory of the process."""
    universes = [Unbounded() for _ in sides]
    try:
        for universe, side in zip(universes, sides, strict=True):
            universe.prepare(sparse_law("lives"), PHYSICS, scattered(count, side), side)
            universe.run(steps)
    except RefusedError as refused:
        return [{"left_out": str(refused)}]
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for universe, spent in zip(universes, seconds, strict=True):
            began = time.perf_counter()
            universe.run(steps)
            spent.append((time.perf_counter() - began) / steps)
    rows = []
    for side, spent, universe in zip(sides, seconds, universes, strict=True):
        command = [sys.executable, __file__, "--memory", str(side), str(count), str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(
            {
                "side": side,
                "minimum_ms": 1e3 * min(spent),
                "median_ms": 1e3 * median(spent),
                "occupied": len(universe.cells()[0]),
                "evaluated": universe.evaluated,
                **json.loads(done.stdout.splitlines()[-1]),
            }
        )
    return rows


def measure_memory(side: int, count: int, steps: int) -> Numbers:
    """Megabytes that a universe adds to this process at its peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {"megabytes": None}

    def megabytes(key: str) -> float:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024

    universe = Unbounded()
    universe.prepare(sparse_law("lives"), PHYSICS, scattered(1, 1024), 1024)
    universe.run(1)  # what the libraries take
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    universe.start = scattered(count, side)
    universe.restart()
    universe.run(steps)
    return {"megabytes": megabytes("VmHWM") - before}


def measure(peers: list[type[Contender]], rounds: int, quick: bool) -> Numbers:
    """Everything of the sparse tables."""
    side, large = (192, 256) if quick else (1024, 4096)
    counts = [10, 20] if quick else [100, 500, 1000]
    steps, loop_steps, most = (4, 2, 20) if quick else (50, 10, 1000)
    lives = sparse_law("lives")
    every = [Ours, *peers]
    cells = scattered(most, side)
    ours, gathered, loop = Unbounded.name, Gathered.name, Loop.name
    result: Numbers = {"side": side, "large": large, "count": most, "steps": steps, "rounds": rounds}
    result["occupancy"] = occupancy(lives, cells, [0, 1, 10, 20, steps, 2 * steps, 8 * steps])

    contenders = [Unbounded(), Gathered(), *dense(every)]
    each = {c.name: 2 if isinstance(c, Dense) else steps for c in contenders}
    result["scattered"] = take_turns(contenders, each, rounds, lives, cells, side)
    progress("scattered", result["scattered"])

    names = {f"{peer.name}, dense": peer for peer in peers}
    best = fastest(result["scattered"], lambda name: name in names)
    contenders = [Unbounded(), *dense([Ours, *([names[best]] if best else [])])]
    each = {c.name: 1 if isinstance(c, Dense) else steps for c in contenders}
    result["large_grid"] = take_turns(contenders, each, 2, lives, scattered(most, large), large)
    progress("large grid", result["large_grid"])

    result["loop"] = {}
    for count in counts:
        contenders = [Unbounded(), Gathered(), Loop()]
        each = {ours: loop_steps, gathered: loop_steps, loop: loop_steps}
        result["loop"][str(count)] = take_turns(
            contenders, each, min(rounds, 6), lives, scattered(count, side), side
        )
        progress(f"loop {count}", result["loop"][str(count)])

    contenders = [Unbounded(), Gathered()]
    each = dict.fromkeys([ours, gathered], 2 if quick else 20)
    result["clustered"] = take_turns(contenders, each, rounds, lives, clustered(most, side), side)
    progress("clustered", result["clustered"])
    contenders = [Unbounded(), Gathered(), *dense([Ours, *([names[best]] if best else [])])]
    each = {c.name: 2 if quick else 8 for c in contenders}
    result["spreads"] = take_turns(contenders, each, min(rounds, 5), sparse_law("spreads"), cells, side)
    progress("spreads", result["spreads"])

    sides = [192, 1024] if quick else [1024, 8192, 65536, 1048576]
    result["flatness"] = flatness(sides, most, steps, rounds)
    return result


def progress(name: str, measured: Numbers) -> None:
    """Says how far it is."""
    shown = [
        f"{contender} {numbers['minimum_ms']:.3g}" if "minimum_ms" in numbers else f"{contender} left out"
        for contender, numbers in measured.items()
    ]
    print(f"sparse, {name}: {'; '.join(shown)} ms", file=sys.stderr, flush=True)


def tables(result: Numbers) -> list[str]:
    """The sparse part of docs/rollout.md."""
    side, large, count = result["side"], result["large"], result["count"]
    lines = [
        "## Scattered cells\n",
        f"A `deep_qca` of {D_STATE} components and {HIDDEN} channels without bias, gamma {PHYSICS.gamma}, "
        f"vacuum threshold {PHYSICS.epsilon}, each cell normalised (weights: `benchmarks/sparse.py`). "
        f"{count:,} cells, half of them alone and half beside another one. Cells alone keep their "
        "amplitudes, pairs turn each other; the law is evaluated at them and at all their neighbours. "
        "Occupied after "
        + ", ".join(f"{step} steps {cells:,}" for step, cells in result["occupancy"].items())
        + ".\n",
        "*error* is the largest difference of an amplitude from a rollout in float64, *only one* how many "
        "cells just one of both has. Dense contenders evaluate every cell of the grid.\n",
    ]
    titles = [
        ("scattered", f"{count:,} scattered cells in {side:,} x {side:,}"),
        ("large_grid", f"{count:,} scattered cells in {large:,} x {large:,}"),
        *((f"loop {n}", f"{n} scattered cells, against a loop over cells") for n in result["loop"]),
        ("clustered", f"{count:,} cells within 64 x 64"),
        ("spreads", f"A law that spreads, from {count:,} cells in {side:,} x {side:,}"),
    ]
    for key, title in titles:
        kind, _, number = key.partition(" ")
        lines += [f"### {title}\n", *table(result[kind][number] if number else result[kind]), ""]
    lines += ["### What a cell costs\n", *cell_costs(result), ""]
    lines += [f"### {count:,} cells, spread ever further\n", *flat_table(result["flatness"])]
    return lines


def block(result: Numbers) -> list[str]:
    """Rows of the README's table: the unbounded universe against the fastest contender on a grid."""
    lines = []
    for key, side in (("scattered", result["side"]), ("large_grid", result["large"])):
        measured = result[key]
        peer = fastest(measured, lambda name: name.endswith(", dense") and not name.startswith(Ours.name))
        if peer and "minimum_ms" in (own := measured[Unbounded.name]):
            own_ms, its_ms = own["minimum_ms"], measured[peer]["minimum_ms"]
            lines.append(
                f"| deep_qca, {result['count']:,} scattered cells | {side}² | {own_ms:.3g} | {peer} "
                f"| {its_ms:.3g} | {its_ms / own_ms:.0f} |"
            )
    return lines


def table(measured: Numbers) -> list[str]:
    lines = [
        "| | minimum, ms | median, ms | occupied | evaluated | ns per evaluated cell | engine's speed "
        "| error | only one |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    own = measured.get(Unbounded.name, {}).get("minimum_ms")
    for name, numbers in measured.items():
        if "left_out" in numbers:
            lines.append(f"| {name} | left out: {numbers['left_out']} |" + " |" * 7)
            continue
        speed = f"{numbers['minimum_ms'] / own:.1f}" if own and name != Unbounded.name else ""
        lines.append(
            f"| {name} | {numbers['minimum_ms']:.3g} | {numbers['median_ms']:.3g} "
            f"| {_whole(numbers.get('occupied'))} | {_whole(numbers.get('evaluated'))} "
            f"| {numbers.get('ns_per_evaluated_cell', 0):.3g} | {speed} | {numbers['error']:.0e} "
            f"| {numbers['cells_of_one_only']} |"
        )
    return lines


def cell_costs(result: Numbers) -> list[str]:
    """The engine's nanoseconds a cell."""
    grid = result["scattered"].get(f"{Ours.name}, dense", {}).get("ns_per_evaluated_cell")
    if grid is None:
        return ["Not measured."]
    lines = [
        "| the engine | ns per evaluated cell | over dense |",
        "|---|---|---|",
        f"| dense | {grid:.3g} | 1 |",
    ]
    for kind in ("scattered", "clustered", "spreads"):
        numbers = result[kind][Unbounded.name]
        if cost := numbers.get("ns_per_evaluated_cell"):
            lines.append(f"| unbounded, {kind} | {cost:.3g} | {cost / grid:.2g} |")
    return lines


def flat_table(rows: list[Numbers]) -> list[str]:
    if "left_out" in rows[0]:
        return [f"Left out: {rows[0]['left_out']}."]
    lines = ["| cells a side | minimum, ms | median, ms | occupied | evaluated | memory, MB |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        memory = "" if row["megabytes"] is None else f"{row['megabytes']:.1f}"
        lines.append(
            f"| {row['side']:,} | {row['minimum_ms']:.3g} | {row['median_ms']:.3g} | {row['occupied']:,} "
            f"| {row['evaluated']:,} | {memory} |"
        )
    return lines


def _whole(value: float | None) -> str:
    return "" if value is None else f"{round(value):,}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(measure_memory(*(int(word) for word in sys.argv[2:]))))
    else:
        write_weights()
