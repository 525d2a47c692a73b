"""Trainer v3 against trainer v4: whose laws live longer, and which of it is the physics' doing.

    python examples/v3_against_v4.py [--small]

Question: v3 asks a law to keep still, v4 to survive, symmetric and complex. What does each bring in a long
rollout of the same architecture?

Method: `nca` is trained under both trainers with three seeds. v3 trains in a closed universe (each cell
normalised), v4 in an open one (decay, no normalisation), so each law rolls out in both, on four universes of
twice its training grid for 1,000 steps: the training, and the physics, are told apart. Energy left N_t / N_0
(1: all survives; in the closed universe it counts occupied cells), the drift |N_t - N_0| / N_0 at the end,
fidelity to the start (1: has not moved) and zlib complexity (1: noise).

Result: Cell normalisation decides about survival, whoever trained: in the closed universe the vacuum
fills, all cells stay, and the density is flat, so that complexity is that of a plain field. There v3's
laws keep a third of the start's fidelity and v4's next to none. In the open universe v3's laws die to a
few percent; v4's keep a complex field but explode slowly, thousandfold in 1,000 steps: trained in
stretches of at most 16 steps and chosen on 64, they do not hold beyond them. Figures: docs/examples.md.
"""

import numpy as np
from study import SMALL, Study, in_parallel, quietly, spread, table

from atheria.rollout import rollout
from atheria.train import train

SEEDS = (0, 1, 2)
TRAINERS = ("v3", "v4")
LAW = (
    "model=nca", "trainer.grid=16", "trainer.episodes=600", "trainer.lr=2e-3", "trainer.scheduler=cosine",
    "trainer.pool=16", "trainer.steps_min=8", "trainer.eval_steps=64", "tracking=off",
)  # fmt: skip
UNIVERSES = {"closed": "closed: cells normalised", "open": "open: decay, no normalisation"}
SIDE = 32
STEPS = 1000
TITLES = {"energy": "energy left", "fidelity": "fidelity to the start", "zlib_complexity": "zlib complexity"}

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def trained(trainer: str, seed: int, output: str, overrides: tuple[str, ...]) -> str:
    """Trains a law; returns the artifact's path."""
    run = quietly(train, [f"trainer={trainer}", *LAW, f"seed={seed}", f"output='{output}'", *overrides])
    return str(run.law)


def curves(law: str, physics: str, output: str, steps: int) -> Curves:
    """A native rollout: by observable, the steps and the means over universes."""
    result = quietly(
        rollout,
        [f"law='{law}'", f"physics={physics}", f"steps={steps}", f"grid={SIDE}", "universes=4", "seed=1000",
         "frames=21", "threads=1", f"output='{output}'", "tracking=off"],
    )  # fmt: skip
    energy = result.observables["energy"]
    frames = np.array([frame.step for frame in result.frames])
    measured = {name: (frames, values.mean(axis=1)) for name, values in result.measured.items()}
    return {"energy": (result.steps, (energy / energy[0]).mean(axis=1)), **measured}


def main() -> None:
    study = Study(__file__, __doc__)
    seeds, steps = ((0,), 20) if study.small else (SEEDS, STEPS)
    small, output = SMALL if study.small else (), str(study.output)
    laws = [(trainer, seed) for trainer in TRAINERS for seed in seeds]
    paths = in_parallel(trained, [(*law, output, small) for law in laws])
    jobs = {
        (*law, physics): (path, physics, output, steps)
        for law, path in zip(laws, paths, strict=True)
        for physics in UNIVERSES
    }
    ends = dict(zip(jobs, in_parallel(curves, jobs.values()), strict=True))

    figure, axes = study.figure(len(UNIVERSES), len(TITLES))
    colours = {"v3": "#d55e00", "v4": "#0072b2"}
    for row, (physics, title) in zip(axes, UNIVERSES.items(), strict=True):
        for axis, (name, label) in zip(row, TITLES.items(), strict=True):
            for trainer, seed in laws:
                legend = f"trained by {trainer}" if seed == seeds[0] else None
                axis.plot(
                    *ends[trainer, seed, physics][name], color=colours[trainer], alpha=0.7, label=legend
                )
            axis.set_title(label, fontsize=10)
            axis.grid(alpha=0.3)
            if (physics, name) == ("open", "energy"):
                axis.set_yscale("log")
        row[0].set_ylabel(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"{SIDE} x {SIDE} cells; one line a seed", fontsize=11)
    columns = {"energy": "energy left", "norm_drift": "energy drift", **TITLES}
    rows = [
        [
            trainer,
            physics,
            *(spread([ends[trainer, s, physics][name][1][-1] for s in seeds]) for name in columns),
        ]
        for physics in UNIVERSES
        for trainer in TRAINERS
    ]
    study.finish(figure, table(["trained by", "universe", *columns.values()], rows))


if __name__ == "__main__":
    main()
