"""What training brings: v3, v4 and the untrained law; what the noise curriculum does for laws under noise.

    python benchmarks/learning.py [--folder outputs/learning] [--seeds 5] [KEY=VALUE ...]

Trains every arm with every seed (a process of one thread for each core), evaluates each law on initial states
that it has never seen, at twice the training grid and four times the training steps, and writes
docs/learning.json, docs/learning.md and docs/learning.png. Resumable: what is in the folder is not done
again. KEY=VALUE are overrides of every training, for a trial.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

RECIPE = ["experiment=long_horizon"]
V3_EPISODES = 1000
ARMS = {
    "v4": ["trainer=v4"],
    "v4 without noise": ["trainer=v4", "noise=none"],
    "v3": ["trainer=v3", f"trainer.episodes={V3_EPISODES}"],
}
"""v4's own noise is the seed's mix, rising to 0.05."""
UNSEEN = 1 << 40
"""Seed of the initial states that laws are judged on; no run has it."""
UNIVERSES = 8
NOISE = "seed"
LEVELS = (0.05, 0.1)

Numbers = dict[str, float]


def jobs(seeds: int) -> list[tuple[str, int]]:
    return [(arm, seed) for seed in range(seeds) for arm in ARMS]


def result_path(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{arm.replace(' ', '_')}-{seed}.json"


def settings(arm: str, seed: int, overrides: list[str]) -> list[str]:
    return [*RECIPE, *ARMS[arm], f"seed={seed}", *overrides]


def is_finished(folder: Path, arm: str, seed: int, overrides: list[str]) -> bool:
    path = result_path(folder, arm, seed)
    return path.is_file() and json.loads(path.read_text())["overrides"] == settings(arm, seed, overrides)


def train_all(folder: Path, seeds: int, overrides: list[str]) -> None:
    """Runs what is missing, as many processes at a time as there are cores."""
    waiting = [job for job in jobs(seeds) if not is_finished(folder, *job, overrides)]
    running: dict[subprocess.Popen[bytes], tuple[str, int]] = {}
    started = time.monotonic()
    total = len(waiting)
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            arm, seed = waiting.pop(0)
            only = ["--folder", str(folder), "--only", arm, str(seed)]
            command = [sys.executable, __file__, *only, *overrides]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            log = (folder / f"{result_path(folder, arm, seed).stem}.log").open("wb")
            running[subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)] = (
                arm,
                seed,
            )
        for process in [p for p in running if p.poll() is not None]:
            arm, seed = running.pop(process)
            if process.returncode != 0:
                sys.exit((folder / f"{result_path(folder, arm, seed).stem}.log").read_text())
            done = total - len(waiting) - len(running)
            minutes = (time.monotonic() - started) / 60
            print(f"{done}/{total}  {arm}, seed {seed}  ({minutes:.1f} min)", flush=True)
        time.sleep(0.5)


def train_one(folder: Path, arm: str, seed: int, overrides: list[str]) -> None:
    """Trains and judges one law; writes its numbers."""
    from atheria import checkpoint, laws
    from atheria.cli import compose_config, to_settings
    from atheria.config import TrainConfig
    from atheria.files import atomically
    from atheria.train import train

    composed = settings(arm, seed, overrides)
    store = [
        f"tracking.uri='sqlite:///{folder}/mlflow.db'",
        "tracking.experiment=learning",
        f"output={folder}",
    ]
    started = time.monotonic()
    run = train([*composed, *store])
    seconds = time.monotonic() - started
    config = to_settings(TrainConfig, compose_config("train", composed))
    state = checkpoint.load(run.folder / checkpoint.BEST)
    trained = laws.build(config.model, config.physics.boundary)
    trained.load_state_dict(state["model_state_dict"])
    untrained = fresh_law(config)
    result = {
        "arm": arm,
        "seed": seed,
        "overrides": composed,
        "seconds": seconds,
        "best_episode": state["episode"],
        "eval_loss": [run.untrained["eval/loss"], run.best["eval/loss"]],
        "trained": judged(trained, config),
        "untrained": judged(untrained, config),
    }
    atomically(result_path(folder, arm, seed), lambda file: file.write_text(json.dumps(result, indent=1)))


def fresh_law(config: Any) -> Any:
    """The law that this run's training began with."""
    import torch

    from atheria import laws

    torch.manual_seed(config.seed)
    return laws.build(config.model, config.physics.boundary)


def judged(law: Any, config: Any) -> dict[str, Numbers]:
    """Numbers of a law at twice the grid and four times the steps: quiet, and under noise."""
    quiet, final = rollout(law, config, 0.0, None)
    numbers = {"quiet": quiet}
    for level in LEVELS:
        numbers[f"noise {level}"], _ = rollout(law, config, level, final)
    return numbers


def rollout(law: Any, config: Any, level: float, quiet_final: Any) -> tuple[Numbers, Any]:
    import torch

    from atheria import initial_state, noise
    from atheria.field import energy_density
    from atheria.losses import Objective, Trajectory
    from atheria.observables import compare, measure
    from atheria.philox import Lattice
    from atheria.physics import Dynamics

    height, width = (2 * side for side in config.trainer.grid)
    lattice = Lattice(UNIVERSES, height, width, torch.device("cpu"))
    initial = initial_state.make(config.initial_state, config.model["d_state"], lattice, UNSEEN)
    channel = noise.channel(NOISE) if level else None
    dynamics = Dynamics(law.eval(), config.physics, UNSEEN, channel, level)
    with torch.inference_mode():
        before = dynamics.rollout(dynamics.start(initial), 4 * config.trainer.steps - 1)
        after = dynamics.step(before)
        trajectory = Trajectory(initial, before.psi, after.psi, after.unnormalised)
        terms = Objective(dict.fromkeys(TERMS, 1.0))(trajectory).terms
        density = energy_density(after.psi).mean(dim=(1, 2))
        values = {
            **terms,
            "symmetry / rho": terms["symmetry"] / density.clamp_min(1e-12),
            "v3 loss": 10 * terms["displacement"] + terms["variance"],
            "v4 loss": 10 * terms["survival"] + 5 * terms["symmetry"] + terms["complexity"],
            **measure(after.psi, config.physics.boundary == "torus"),
            **compare(initial, after.psi),
        }
        if quiet_final is not None:
            values["fidelity to quiet"] = compare(quiet_final, after.psi)["fidelity"]
    return {name: value.mean().item() for name, value in values.items()}, after.psi


TERMS = ("survival", "symmetry", "complexity", "displacement", "variance")


def load(folder: Path, seeds: int) -> list[dict[str, Any]]:
    return [json.loads(result_path(folder, *job).read_text()) for job in jobs(seeds)]


def groups(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Numbers]]]:
    """Numbers of every seed, by law and physics."""
    by_arm: dict[str, list[dict[str, Numbers]]] = {}
    for name, arm, kind in (
        ("untrained, physics of v3", "v3", "untrained"),
        ("v3", "v3", "trained"),
        ("untrained, physics of v4", "v4", "untrained"),
        ("v4", "v4", "trained"),
        ("v4 without noise", "v4 without noise", "trained"),
    ):
        by_arm[name] = [result[kind] for result in results if result["arm"] == arm]
    return by_arm


QUIET_COLUMNS = ("survival", "symmetry", "symmetry / rho", "complexity", "v4 loss",
                 "displacement", "variance", "v3 loss")  # fmt: skip
NOISY_COLUMNS = ("survival", "symmetry", "symmetry / rho", "fidelity", "fidelity to quiet")
OWN = {"v3": ("displacement", "variance", "v3 loss"), "v4": ("survival", "symmetry", "complexity", "v4 loss"),
       "v4 without noise": ("survival", "symmetry", "complexity", "v4 loss")}  # fmt: skip
BASE = {"v3": "untrained, physics of v3", "v4": "untrained, physics of v4",
        "v4 without noise": "untrained, physics of v4"}  # fmt: skip


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3g} ± {deviation:.2g}"


def table(columns: tuple[str, ...], rows: Mapping[str, list[Numbers]]) -> Iterator[str]:
    yield "| law | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, numbers in rows.items():
        yield f"| {name} | " + " | ".join(spread([n[c] for n in numbers]) for c in columns) + " |"


def wins(data: dict[str, list[dict[str, Numbers]]]) -> Iterator[str]:
    """In how many seeds a trained law beats the untrained law of its seed, for each of its own terms."""
    for arm, terms in OWN.items():
        pairs = list(zip(data[arm], data[BASE[arm]], strict=True))
        counts = [
            f"{term} {sum(t['quiet'][term] < u['quiet'][term] for t, u in pairs)}/{len(pairs)}"
            for term in (*terms, *(("symmetry / rho",) if arm != "v3" else ()))
        ]
        yield f"- {arm}: " + ", ".join(counts)


def noise_wins(data: dict[str, list[dict[str, Numbers]]], level: float) -> Iterator[str]:
    """In how many seeds the law trained with the noise curriculum beats, under noise, the one without."""
    key = f"noise {level}"
    pairs = list(zip(data["v4"], data["v4 without noise"], strict=True))
    counts = []
    for term in NOISY_COLUMNS:
        better = (lambda a, b: a > b) if term.startswith("fidelity") else (lambda a, b: a < b)
        counts.append(f"{term} {sum(better(a[key][term], b[key][term]) for a, b in pairs)}/{len(pairs)}")
    yield "- " + ", ".join(counts)


def page(results: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    data = groups(results)
    lines = [
        "# What training brings",
        "",
        "<!-- written by benchmarks/learning.py -->",
        f"Laws: {facts['model']}, trained by `{' '.join(RECIPE)}`: {facts['episodes']} episodes (v3: "
        f"{V3_EPISODES}) of at most {facts['steps']} steps on {facts['grid'][0]} x {facts['grid'][1]} cells; "
        f"{facts['seeds']} seeds each. Judged on {UNIVERSES} unseen universes at twice the grid after four "
        f"times the steps ({4 * facts['steps']}), each under its own physics. Mean ± standard deviation over "
        "seeds; lower is better but for fidelity.",
        "",
        f"Measured on {facts['cores']} cores of an {facts['processor']}, Python {facts['python']}, torch "
        f"{facts['torch']}, {facts['date']}; {facts['minutes']:.0f} minutes in all.",
        "",
        "![Each seed's law, per term](learning.png)",
        "",
        "## Without noise",
        "",
        *table(QUIET_COLUMNS, {name: [n["quiet"] for n in numbers] for name, numbers in data.items()}),
        "",
        "Seeds in which the trained law beats the untrained law of its seed, for each term of its own loss:",
        "",
        *wins(data),
        "",
    ]
    noisy = ("untrained, physics of v4", "v4", "v4 without noise")
    for level in LEVELS:
        key = f"noise {level}"
        lines += [
            f"## Under noise ({NOISE}, level {level})",
            "",
            *table(NOISY_COLUMNS, {name: [n[key] for n in data[name]] for name in noisy}),
            "",
            "Seeds in which the law trained with the noise curriculum beats the one trained without:",
            "",
            *noise_wins(data, level),
            "",
        ]
    lines += [
        "`fidelity` is to the initial field, `fidelity to quiet` to the same law's field without noise.",
        "",
    ]
    return "\n".join(lines)


BLOCK_ROWS = ("untrained, physics of v4", "v4 without noise", "v4")
BLOCK_COLUMNS = ("survival", "symmetry", "symmetry / rho", "complexity")


def block(measured: Mapping[str, Any]) -> str:
    """What the README says of the figures."""
    facts, data = measured["facts"], groups(measured["results"])
    rows = {
        f"{name.removesuffix(', physics of v4')}{under}": [numbers[condition] for numbers in data[name]]
        for condition, under in (("quiet", ""), (f"noise {LEVELS[0]}", ", under noise"))
        for name in BLOCK_ROWS
    }
    lines = [
        "<!-- learning: written by benchmarks/learning.py -->",
        *table(BLOCK_COLUMNS, rows),
        "",
        f"{facts['model']}, {facts['seeds']} seeds, mean ± standard deviation; lower is better. "
        f"{facts['cores']} cores of an {facts['processor']}, torch {facts['torch']}, {facts['date']}; "
        f"{facts['minutes']:.0f} minutes in all.",
        "<!-- /learning -->",
    ]
    return "\n".join(lines)


def quote(measured: Mapping[str, Any], readme: Path) -> None:
    """Puts the figures into the README."""
    text = readme.read_text()
    before, rest = text.split("<!-- learning", 1)
    after = rest.split("<!-- /learning -->", 1)[1]
    readme.write_text(before + block(measured) + after)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = groups(results)
    panels = [("quiet", term) for term in QUIET_COLUMNS]
    panels += [(f"noise {LEVELS[0]}", term) for term in NOISY_COLUMNS]
    figure = Figure(figsize=(16, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 5).flat
    colours = {"untrained, physics of v3": "#9aa5b1", "v3": "#d55e00", "untrained, physics of v4": "#56606b",
               "v4": "#0072b2", "v4 without noise": "#009e73"}  # fmt: skip
    for (condition, term), axis in zip(panels, axes, strict=False):
        shown = [
            n for n in data if condition == "quiet" or not n.startswith(("v3", "untrained, physics of v3"))
        ]
        for place, name in enumerate(shown):
            values = [numbers[condition][term] for numbers in data[name]]
            axis.plot([place] * len(values), values, "o", color=colours[name], alpha=0.6)
            axis.hlines(statistics.mean(values), place - 0.3, place + 0.3, color=colours[name])
        axis.set_title(term if condition == "quiet" else f"{term}, {condition}", fontsize=10)
        axis.set_xticks([])
        axis.grid(axis="y", alpha=0.3)
    for axis in list(axes):
        axis.set_axis_off()
    handles = [figure.axes[0].plot([], [], "o", color=c, label=n)[0] for n, c in colours.items()]
    figure.legend(handles=handles, loc="lower right", fontsize=11)
    height, width = (2 * side for side in results[0]["grid"])
    figure.suptitle(
        f"Unseen states, {height} x {width} cells, four times the training steps; one point a seed"
    )
    figure.savefig(path, dpi=100)


def describe(results: list[dict[str, Any]], seeds: int) -> dict[str, Any]:
    import torch
    from first_run import processor

    from atheria.cli import compose_config, to_settings
    from atheria.config import TrainConfig

    config = to_settings(TrainConfig, compose_config("train", results[0]["overrides"]))
    plan = config.trainer
    for result in results:
        result["grid"] = plan.grid
    return {
        "seeds": seeds,
        "model": f"{config.model['name']} with d_state {config.model['d_state']} and "
        f"{config.model['hidden_channels']} channels",
        "episodes": plan.episodes,
        "steps": plan.steps,
        "grid": plan.grid,
        "minutes": sum(result["seconds"] for result in results) / 60 / (os.cpu_count() or 1),
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs/learning")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write the report")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs=2, metavar=("ARM", "SEED"), help="train this one and end")
    arguments, overrides = parser.parse_known_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.only:
        arm, seed = arguments.only
        train_one(folder, arm, int(seed), overrides)
        return
    train_all(folder, arguments.seeds, overrides)
    results = load(folder, arguments.seeds)
    facts = describe(results, arguments.seeds)
    measured = {"facts": facts, "results": results}
    (arguments.docs / "learning.json").write_text(json.dumps(measured, indent=1) + "\n")
    (arguments.docs / "learning.md").write_text(page(results, facts))
    plot(results, arguments.docs / "learning.png")
    if arguments.docs == DOCS:
        quote(measured, ROOT / "README.md")
    print(page(results, facts))


if __name__ == "__main__":
    main()
