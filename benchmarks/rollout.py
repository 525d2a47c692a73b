"""What a step of a rollout costs: the engine against every runtime that one would use instead.

    python benchmarks/rollout.py [--laws mlp deep_qca deep_qca_eight nca unet]
                                 [--sizes 64 256 1024] [--rounds N]
                                 [--peers eager frozen compile onnxruntime openvino jax]
                                 [--skip-sparse] [--quick] [--threads N] [--docs DIR] [--name NAME]

All contenders of a row have the same weights and the same field; they take turns in one process, so a busy
machine slows all of them. Each steps its own field on and on; before the race the results are compared with a
rollout in float64. The last layer's weights are scaled so that a step changes the field by a tenth. A peer
that is not installed is named, not hidden: `pip install -e .[bench]` brings all. Contenders are in
`peers.py`, the unbounded universe in `sparse.py`. Writes DIR/NAME.json, DIR/NAME.md and
DIR/NAME_times.png, and, where DIR is the project's docs and NAME rollout, the block of the README that quotes
them; `rollout_avx2` is the name for a CPU without AVX-512, `rollout_amx` for one with AMX. --quick tries
everything at a small size; its figures mean nothing.
"""

import argparse
import copy
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import sparse
import torch
from first_run import processor
from peers import (
    CONTENDERS,
    Contender,
    Eager,
    EightCopies,
    Frozen,
    Ours,
    RefusedError,
    lacks_bf16,
    limit_threads,
    step_of,
    versions,
)
from torch import Tensor, nn

from atheria.config import PhysicsConfig
from atheria.laws import Law, build, initial_memory, propose

ROOT = Path(__file__).parents[1]
NAME = "rollout"
"""Of the files whose figures the README quotes."""
EIGHT = "deep_qca_eight"
LAWS = ["mlp", "deep_qca", EIGHT, "nca", "unet"]
OTHERS = ["unet_product", "unet_unitary", "unet_convlstm", "snn_unet", "quantum_walk"]
"""Against PyTorch alone, on the smallest grid."""
D_STATE, HIDDEN = 8, 32
PHYSICS = PhysicsConfig(gamma=0.01, epsilon=0.0, normalise="cell", fire_rate=1.0, boundary="torus")
CHANGE = 0.1
"""Norm of what an exported law proposes, over that of the field."""
STEPS_COMPARED = {64: 20, 256: 4, 1024: 1}
TOLERANCE = {False: 1e-3, True: 1e-1}
"""Relative error up to which a result counts as the same: in float32, in bfloat16."""
TURN = 0.03
"""Seconds that a turn takes about."""
REST = 0.02
"""Seconds between turns, in which threads of the last contender stop spinning."""
SMALL_PART = 0.03
"""Share of a step below which a part has no line of its own."""
NOTHING = 0.005
"""Share of a step below which the others have none, either."""
PROFILE = 0.5
"""Seconds that a profile is taken of about, but of three steps at least."""
BUDGET = 30
"""Seconds that the turns of a row take about, but for three rounds at least."""
MATRIX = 2048
PEAK = Path(__file__).with_name("peak.cpp")

Numbers = dict[str, Any]


def law_of(name: str, side: int) -> tuple[Law, Tensor]:
    """A law that acts, and a field (1, 2d, side, side) of cells of norm 1: the same at every call."""
    torch.manual_seed(0)
    model: dict[str, Any] = {"name": "deep_qca" if name == EIGHT else name, "d_state": D_STATE}
    if name != "quantum_walk":
        model |= {"hidden_channels": HIDDEN, "bias": True}
    if "unet" in name:
        model["norm"] = "group"
    if name == "snn_unet":
        model["inner_steps"] = 4
    law = build(model, "torus").eval()
    if name == EIGHT:
        law.__class__ = EightCopies
    law.model = model
    psi = torch.randn(1, 2 * D_STATE, side, side, generator=torch.Generator().manual_seed(1))
    psi /= psi.square().sum(dim=1, keepdim=True).sqrt()
    layers = [module for module in law.modules() if isinstance(module, nn.Conv2d)]
    last = getattr(law, "outc", layers[-1] if layers else None)
    if last is not None:
        # On a small part of the field: a law's answer hardly depends on the grid.
        part = psi[..., : min(side, 64), : min(side, 64)].contiguous()
        with torch.no_grad():
            for _ in range(3):
                delta, _ = propose(law, part, initial_memory(law, part))
                last.weight *= CHANGE * part.norm() / delta.norm().clamp(min=1e-30)
    return law, psi


def reference(law: Law, psi: Tensor, steps: int) -> np.ndarray:
    """The field after some steps in float64."""
    step = step_of(law, PHYSICS).double()
    state: tuple[Tensor, ...] = (psi.double(),)
    if (memory := initial_memory(law.double(), psi.double())) is not None:
        state = (psi.double(), memory)
    law.float()
    with torch.inference_mode():
        for _ in range(steps):
            out = step(*state)
            state = out if isinstance(out, tuple) else (out,)
    return state[0].numpy()


def relative_error(field: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest number; 1 where a field is not finite."""
    error = np.abs(field - expected).max() / np.abs(expected).max()
    return float(error) if np.isfinite(error) else 1.0


def operations(law: Law, psi: Tensor) -> int:
    """Additions and multiplications of a step's trained layers, by direct convolution."""
    counted = []

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        if layer.weight.requires_grad:
            # A transposed convolution of stride 2 puts each weight to use once for each input.
            cells = out[0, 0].numel() // (4 if isinstance(layer, nn.ConvTranspose2d) else 1)
            counted.append(2 * layer.weight.numel() * cells)

    twin = copy.deepcopy(law)
    for layer in twin.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        propose(twin, psi, initial_memory(twin, psi))
    total = sum(counted)
    cells = psi[0, 0].numel()
    if type(law).__name__ == "DeepQCA":  # its first layer, folded, is no module
        total += 2 * 2 * D_STATE * HIDDEN * cells
    if type(law).__name__ == "QuantumWalk":
        total += 2 * (2 * D_STATE) ** 2 * cells
    return total


def row(name: str, side: int, kinds: list[type[Contender]], rounds: int | None) -> Numbers:
    """One law on one grid: every contender prepared, compared and timed."""
    law, psi = law_of(name, side)
    compared = next((steps for size, steps in STEPS_COMPARED.items() if side <= size), 1)
    expected = reference(law, psi, compared)
    ready: dict[str, Contender] = {}
    measured: Numbers = {}
    for kind in kinds:
        started = time.perf_counter()
        contender = kind()
        try:
            contender.prepare(law, PHYSICS, psi.clone())
            contender.run(compared)
        except RefusedError as refused:
            measured[kind.name] = {"left_out": str(refused)}
            continue
        except Exception as error:  # of a peer's own: said in the table, the others go on
            measured[kind.name] = {
                "left_out": f"fails: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
            }
            if issubclass(kind, Ours):
                raise
            continue
        error = relative_error(contender.field(), expected)
        prepared = time.perf_counter() - started
        same = error <= TOLERANCE[kind.bf16]
        measured[kind.name] = {
            "bf16": kind.bf16,
            "error": error,
            "same": same,
            "prepare_seconds": prepared,
            "note": contender.note,
        }
        ready[kind.name] = contender
    first = next(iter(ready.values()))
    tried: list[float] = []
    while len(tried) < 3 and sum(tried) < 0.5:
        began = time.perf_counter()
        first.run(1)
        tried.append(time.perf_counter() - began)
    one = min(tried)
    steps = max(1, min(200, round(TURN / one)))
    turns = rounds or max(3, min(30, round(BUDGET / (len(ready) * (2 * steps * one + REST)))))
    for name_of, seconds in race(ready, steps, turns).items():
        measured[name_of] |= {"minimum_ms": 1e3 * min(seconds), "median_ms": 1e3 * median(seconds)}
    for name_of, contender in ready.items():
        if isinstance(contender, Ours):
            measured[name_of]["profile"] = contender.profile(max(3, round(PROFILE / one)))
    result: Numbers = {
        "law": name,
        "side": side,
        "steps_compared": compared,
        "steps_a_turn": steps,
        "rounds": turns,
        "operations": operations(law, psi),
        "contenders": measured,
    }
    for bf16 in (False, True):
        result["bf16" if bf16 else "fp32"] = compare(measured, bf16)
    del ready, first
    gc.collect()
    return result


def race(ready: dict[str, Contender], steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    slow = set()
    for name, contender in ready.items():
        began = time.perf_counter()
        contender.run(steps)  # JAX compiles for the number of steps
        if time.perf_counter() - began > 20 * TURN:
            slow.add(name)  # what it has left in the caches does not matter
    for _ in range(rounds):
        for name, contender in ready.items():
            time.sleep(REST)
            if name not in slow:
                contender.run(steps)
            began = time.perf_counter()
            contender.run(steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    return seconds


def compare(measured: Numbers, bf16: bool) -> Numbers:
    """The fastest peer with the same result, and the engine's speed over its: of minima, of medians."""
    timed = {
        name: numbers
        for name, numbers in measured.items()
        if "minimum_ms" in numbers and numbers["bf16"] == bf16 and numbers["same"]
    }
    own = next((numbers for name, numbers in timed.items() if name.startswith(Ours.name)), None)
    peers = {name: numbers for name, numbers in timed.items() if not name.startswith(Ours.name)}
    if not peers:
        return {"fastest_peer": None}
    least = min(peers, key=lambda name: peers[name]["minimum_ms"])
    result: Numbers = {"fastest_peer": least}
    if own is not None:
        for key in ("minimum_ms", "median_ms"):
            result[f"speed_{key[:-3]}"] = min(numbers[key] for numbers in peers.values()) / own[key]
    return result


def ceiling(size: int) -> dict[str, float]:
    """GFLOP/s of torch's matrix product, the best of a few, in what the CPU computes in."""
    reached = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and lacks_bf16():
            continue
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        best = float("inf")
        with torch.inference_mode():
            for _ in range(6):
                began = time.perf_counter()
                a @ b
                best = min(best, time.perf_counter() - began)
        reached[name] = 2 * size**3 / best / 1e9
    return reached


def peak(threads: int) -> float | None:
    """GFLOP/s of float32 multiply-adds on registers alone; None without a C++ compiler."""
    compiler = shutil.which("c++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        subprocess.run([compiler, "-O3", "-march=native", "-pthread", PEAK, "-o", program], check=True)
        printed = subprocess.run([program, str(threads)], check=True, capture_output=True, text=True)
    return float(printed.stdout)


def measure(arguments: argparse.Namespace) -> Numbers:
    """Everything that the page says."""
    quick = arguments.quick
    chosen = [kind for kind in CONTENDERS if issubclass(kind, Ours) or kind.key in arguments.peers]
    missing = {kind.name: kind.missing() for kind in chosen if kind.missing()}
    kinds = [kind for kind in chosen if kind.name not in missing]
    for name, why in missing.items():
        print(f"left out  {name}: {why}", file=sys.stderr, flush=True)
    size = 256 if quick else MATRIX
    result: Numbers = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions(),
        "date": date.today().isoformat(),
        "quick": quick,
        "d_state": D_STATE,
        "hidden_channels": HIDDEN,
        "left_out": missing,
        "peak": peak(torch.get_num_threads()),
        "ceilings": [ceiling(size)],
        "rows": [],
        "others": [],
    }
    rounds = 2 if quick and arguments.rounds is None else arguments.rounds
    for law in arguments.laws:
        for side in arguments.sizes:
            progress(row(law, side, kinds, rounds), result["rows"])
        result["ceilings"].append(ceiling(size))
    few = [kind for kind in kinds if kind in (Ours, Eager, Frozen)]
    for law in OTHERS:
        progress(row(law, min(arguments.sizes), few, rounds), result["others"])
    if not arguments.skip_sparse:
        peers = [kind for kind in kinds if not issubclass(kind, Ours) and not kind.bf16]
        result["sparse"] = sparse.measure(peers, rounds or 30, quick)
    result["ceilings"].append(ceiling(size))
    return result


def progress(measured: Numbers, rows: list[Numbers]) -> None:
    """Keeps a row and says what it found."""
    rows.append(measured)
    own = measured["contenders"][Ours.name]
    found = measured["fp32"]
    print(
        f"{measured['law']:14s}{measured['side']:5d}  {own['minimum_ms']:9.3f} ms, "
        f"{found.get('speed_minimum', 0):.2f} x {found['fastest_peer']} ({own['note'].partition(':')[0]})",
        file=sys.stderr,
        flush=True,
    )


HEAD = """# Rollouts, measured

Written by `benchmarks/rollout.py`. A step is the law, the decay and the normalisation of each cell, of one
universe on a torus: {d_state} components, {hidden_channels} channels. {cores} cores of an {processor},
{threads} threads, Python {python}, {packages}, {date}.

All contenders of a row took turns in one process, each in its own best form, with the same weights and field:
the whole step one compiled graph, its output the next input without a copy. *error* is the largest difference
from a rollout in float64 after the number of steps named, over the largest number; a contender beyond
{float_limit:g} ({half_limit:g} in bf16) computes something else and is not compared. *speed* is the fastest
peer's time over the engine's, above 1 where the engine is faster. Where cells do not see each other, as in
`mlp`, the engine takes up to 16 steps of a few cells in a row.
"""

OF_EIGHT = """\
`deep_qca_eight` is `deep_qca` as the seed wrote it, and as one would: the sum of the neighbours of each
channel eight times over, and a first layer that sees all eight. The engine finds that they are one; whoever
runs the graph as it is written computes them all. Atheria's own `deep_qca` computes one, in Python too, so
that every contender of its rows is spared the other seven.
"""

LEAVES_BF16 = """\
Asked for bf16, the engine computes large grids of unets in float32 on this CPU, where Winograd's algorithm
takes less time than products in bfloat16: the note beside each time says from how many cells on. Such rows
are held against the ceiling of bf16.
"""


def page(result: Numbers, name: str) -> str:
    """The page of that name."""
    packages = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        HEAD.format(packages=packages, float_limit=TOLERANCE[False], half_limit=TOLERANCE[True], **result)
    ]
    if any(measured["law"] == EIGHT for measured in result["rows"]):
        lines.append(OF_EIGHT)
    notes = [own.get("note", "") for measured in result["rows"] for own in measured["contenders"].values()]
    if any("bfloat16, but in float32 on grids" in note for note in notes):
        lines.append(LEAVES_BF16)
    if result["quick"]:
        lines.append("**A trial at a small size: these figures mean nothing.**\n")
    if result["left_out"]:
        lines += [f"Not here: {name} ({why})." for name, why in result["left_out"].items()] + [""]
    lines += [f"![Times of a step]({name}_times.png)\n", "## The engine against the fastest peer\n"]
    lines += [*summary(result), "", *ceilings(result), "", *profiles(result), ""]
    for measured in result["rows"]:
        lines += [f"## {measured['law']}, {measured['side']} x {measured['side']}\n", *table(measured), ""]
    lines += ["## The other laws, against PyTorch\n"]
    for measured in result["others"]:
        lines += [f"### {measured['law']}, {measured['side']} x {measured['side']}\n", *table(measured), ""]
    if "sparse" in result:
        lines += sparse.tables(result["sparse"])
    return "\n".join(lines).rstrip() + "\n"


def block(result: Numbers) -> str:
    """What the README says of the figures."""
    lines = [
        "<!-- rollout: written by benchmarks/rollout.py -->",
        "| law | cells | engine, ms a step | fastest peer | its ms | speed |",
        "|---|---|---|---|---|---|",
    ]
    for measured in result["rows"]:
        own, peer = measured["contenders"][Ours.name], measured["fp32"]["fastest_peer"]
        if peer:
            cells = [
                measured["law"],
                f"{measured['side']}²",
                _ms(own["minimum_ms"]),
                peer,
                _ms(measured["contenders"][peer]["minimum_ms"]),
                f"{measured['fp32']['speed_minimum']:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += sparse.block(result["sparse"]) if "sparse" in result else []
    lines += [
        "",
        f"float32, {result['d_state']} components (scattered cells: {sparse.D_STATE}), "
        f"{result['hidden_channels']} channels; least of several turns; {result['threads']} threads on "
        f"{result['cores']} cores of an {result['processor']}, torch {result['versions']['torch']}, "
        f"{result['date']}.",
        "<!-- /rollout -->",
    ]
    return "\n".join(lines)


def quote(result: Numbers, readme: Path) -> None:
    """Puts the figures into the README."""
    text = readme.read_text()
    before, rest = text.split("<!-- rollout", 1)
    readme.write_text(before + block(result) + rest.split("<!-- /rollout -->", 1)[1])


def summary(result: Numbers) -> list[str]:
    """One line a row: the engine, the fastest peer, and what part of a matrix product's speed is reached."""
    top = {kind: max(found[kind] for found in result["ceilings"]) for kind in result["ceilings"][0]}
    lines = [
        "| law | cells | backend | engine, ms | fastest peer | its ms | speed | of medians | engine, GFLOP/s "
        "| of the ceiling | of the peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    most = {"fp32": result.get("peak"), "bf16": None}
    for measured in [*result["rows"], *result["others"]]:
        for kind in ("fp32", "bf16"):
            name = Ours.name if kind == "fp32" else f"{Ours.name} bf16"
            own, peer = measured["contenders"].get(name, {}), measured[kind]["fastest_peer"]
            if "minimum_ms" not in own:
                continue
            reached = measured["operations"] / own["minimum_ms"] / 1e6
            theirs = measured["contenders"][peer]["minimum_ms"] if peer else None
            speeds = [measured[kind].get(f"speed_{of}") for of in ("minimum", "median")]
            cells = [
                measured["law"] + (" in bf16" if kind == "bf16" else ""),
                f"{measured['side']}²",
                own["note"].partition(":")[0],
                _ms(own["minimum_ms"]),
                peer or "",
                _ms(theirs),
                *("" if speed is None else f"{speed:.2f}" for speed in speeds),
                f"{reached:.0f}",
                f"{reached / top[kind]:.2f}",
                "" if most[kind] is None else f"{reached / most[kind]:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def ceilings(result: Numbers) -> list[str]:
    found = {kind: [one[kind] for one in result["ceilings"]] for kind in result["ceilings"][0]}
    reached = [f"{max(of):.0f} GFLOP/s in {kind} (least {min(of):.0f})" for kind, of in found.items()]
    return [
        f"The ceiling is torch's product of two {MATRIX} x {MATRIX} matrices, measured "
        f"{len(result['ceilings'])} times",
        f"during the run: {', '.join(reached)}. A law's operations are those",
        "of its trained layers by direct convolution; an algorithm that needs fewer can pass the ceiling.",
        *of_peak(result.get("peak")),
    ]


def of_peak(most: float | None) -> list[str]:
    if most is None:
        return []
    return [
        f"The peak is {most:.0f} GFLOP/s, before the rest: multiply-adds in float32, on registers alone",
        "(`peak.cpp`).",
        "Activations and the step around a law multiply too, and count no operation.",
    ]


def profiles(result: Numbers) -> list[str]:
    """Where a step's time goes: the parts that matter, of float32 and of laws with products in bfloat16."""
    lines = [
        "## Where the time of a step goes\n",
        "By `engine.profile`, in steps of their own after the race: the time of the thread that steps, while "
        "the other is at",
        f"its shares of the same parts. Parts of less than {SMALL_PART:.0%} are summed up. An activation "
        "takes time and counts no operation;",
        "Winograd's algorithm, for the unets' wide layers in float32 and nca's filters and first layer,",
        "needs fewer than are counted. With AVX-512, the step around a law that ends in a product of 16",
        "channels is part of that product.\n",
        "| law | cells | part | ms | share | GFLOP/s | of the ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for measured in result["rows"]:
        for kind in ("fp32", "bf16"):
            own = measured["contenders"].get(Ours.name if kind == "fp32" else f"{Ours.name} bf16", {})
            if own.get("profile") and (kind == "fp32" or "in bfloat16" in own["note"]):
                top = max(found[kind] for found in result["ceilings"])
                law = measured["law"] + (" in bf16" if kind == "bf16" else "")
                lines += [
                    f"| {law} | {measured['side']}² | {' | '.join(cells)} |"
                    for cells in profile_cells(own["profile"], top)
                ]
    return lines


def profile_cells(parts: list[Numbers], ceiling_of_kind: float) -> list[list[str]]:
    """What the table says of a profile's parts."""
    whole = sum(part["seconds"] for part in parts)
    small = [part for part in parts[:-2] if part["seconds"] < SMALL_PART * whole]
    shown = [part for part in parts if part not in small]
    sums = {key: sum(part[key] for part in small) for key in ("seconds", "operations")}
    if sums["seconds"] > NOTHING * whole:  # else another part has their operations in it
        shown.insert(-2, {"what": f"{len(small)} others", **sums})
    if shown[-2]["seconds"] == 0:
        del shown[-2]  # the step around the law is part of a product
    rows = []
    for part in shown:
        speed = part["operations"] / part["seconds"] / 1e9 if part["seconds"] else 0
        speeds = [f"{speed:.0f}", f"{speed / ceiling_of_kind:.2f}"] if speed else ["", ""]
        rows.append(
            [
                part["what"],
                _ms(1e3 * part["seconds"]),
                f"{part['seconds'] / whole:.0%}".replace("%", " %"),
                *speeds,
            ]
        )
    return rows


def table(measured: Numbers) -> list[str]:
    lines = [
        f"{measured['rounds']} rounds of {measured['steps_a_turn']} steps; compared after "
        f"{measured['steps_compared']}.\n",
        "| | minimum, ms | median, ms | over the engine | error | prepared in, s | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, numbers in measured["contenders"].items():
        if "left_out" in numbers:
            lines.append(f"| {name} | | | | | | left out: {numbers['left_out']} |")
            continue
        own = measured["contenders"].get(f"{Ours.name} bf16" if numbers["bf16"] else Ours.name, {})
        ratio = numbers["minimum_ms"] / own["minimum_ms"] if "minimum_ms" in own else None
        fastest = name == measured["bf16" if numbers["bf16"] else "fp32"]["fastest_peer"]
        cells = [
            f"**{name}**" if fastest or name.startswith(Ours.name) else name,
            _ms(numbers["minimum_ms"]),
            _ms(numbers["median_ms"]),
            "" if ratio is None else f"{ratio:.2f}",
            f"{numbers['error']:.0e}" + ("" if numbers["same"] else ", **wrong**"),
            f"{numbers['prepare_seconds']:.1f}",
            numbers["note"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def plot(result: Numbers, path: Path) -> None:
    """Bars: every contender's time of a step, a group for each law and size."""
    rows = result["rows"]
    names = [kind.name for kind in CONTENDERS if any(_time(found, kind.name) for found in rows)]
    figure, axes = plt.subplots(figsize=(max(6.0, 1.3 * len(rows) + 2), 4.5), layout="constrained")
    width = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        places = [place for place, found in enumerate(rows) if _time(found, name)]
        heights = [_time(rows[place], name) for place in places]
        colour: Any = "#c0392b" if name == Ours.name else "#e59866"
        if not name.startswith(Ours.name):
            colour = plt.get_cmap("Blues")(0.3 + 0.6 * index / len(names))
        axes.bar(
            [place + (index + 0.5) * width - 0.4 for place in places],
            heights,
            width,
            label=name,
            color=colour,
        )
    axes.set_yscale("log")
    axes.set_ylabel("ms per step, least")
    axes.set_xticks(range(len(rows)), [f"{found['law']}\n{found['side']}²" for found in rows])
    axes.legend(fontsize=8, ncols=2)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _time(measured: Numbers, name: str) -> float | None:
    time_of: float | None = measured["contenders"].get(name, {}).get("minimum_ms")
    return time_of


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = sorted({kind.key for kind in CONTENDERS if not issubclass(kind, Ours)})
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS, help="rows of the dense table")
    parser.add_argument("--sizes", nargs="+", type=int, help="cells a side (64 256 1024)")
    parser.add_argument(
        "--rounds", type=int, help="turns of each contender (as many as take about 30 s, 30 at most)"
    )
    parser.add_argument("--peers", nargs="*", choices=keys, default=keys, help="whom to race against (all)")
    parser.add_argument("--skip-sparse", action="store_true", help="leaves the unbounded universe out")
    parser.add_argument("--quick", action="store_true", help="a small trial; its figures mean nothing")
    parser.add_argument("--threads", type=int, help="of every contender (all cores)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where to write")
    parser.add_argument("--name", default=NAME, help="what the files are called (%(default)s)")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([16] if arguments.quick else [64, 256, 1024])
    if any(side < 8 or side % 4 for side in arguments.sizes):
        parser.error(f"--sizes must be multiples of 4 from 8 on, got {arguments.sizes}")
    limit_threads(arguments.threads or os.cpu_count() or 1)
    result = measure(arguments)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    written = page(result, arguments.name)
    (arguments.docs / f"{arguments.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, arguments.docs / f"{arguments.name}_times.png")
    (arguments.docs / f"{arguments.name}.md").write_text(written)
    if arguments.docs.resolve() == ROOT / "docs" and arguments.name == NAME:
        quote(result, ROOT / "README.md")
    print(written)


if __name__ == "__main__":
    main()
