"""How far damage spreads: is a cell's loss healed, kept or carried to the whole grid?

    python examples/damage_spreading.py [--small]

Question: The cell with most energy is emptied in a copy of the universe. How far, and how fast, do the two
grow apart, for a law before training and after it, in quiet and under noise?

Method: `atheria.spreading.damage_spreading` steps both copies with the same random numbers, so that noise
does not tell them apart by itself. The law `nca` sees one cell far, so no front can run faster than one cell
a step. It is trained under v3 and v4 with three seeds; *untrained* is the law that v4's training begins with,
which does next to nothing. Four universes of 64 x 64 cells each, 128 steps, under each law's own physics;
noise: channel `seed` at 0.05.

Result: Damage is kept and creeps: no law heals it, none carries it far. After 128 steps it reaches 4
cells under v3's laws and 8 under v4's, far inside the light cone of 128; the untrained law's stays
within one cell. The noise of this channel slows it, by a cell for v3's and two for v4's. Figures:
docs/examples.md.
"""

from study import SMALL, Study, in_parallel, quietly, spread, table

from atheria.train import train

SEEDS = (0, 1, 2)
ARMS = {"untrained": "v4", "trained by v3": "v3", "trained by v4": "v4"}
LAW = (
    "model=nca", "trainer.grid=16", "trainer.episodes=600", "trainer.lr=2e-3", "trainer.scheduler=cosine",
    "trainer.pool=16", "trainer.steps_min=8", "trainer.eval_steps=64", "tracking=off",
)  # fmt: skip
LEVELS = {0.0: "in quiet", 0.05: "under noise"}
SIDE = 64
STEPS = 128
UNIVERSES = 4
UNSEEN = 1000
"""Seed of the initial states, which no training has."""

Damage = dict[str, list[float]]


def damages(arm: str, seed: int, output: str, overrides: tuple[str, ...], steps: int) -> dict[float, Damage]:
    """Trains the law where the arm asks for it; how damage spreads under each level of noise."""
    import torch

    from atheria import checkpoint, initial_state, laws, noise
    from atheria.cli import compose_config, to_settings
    from atheria.config import TrainConfig
    from atheria.philox import Lattice
    from atheria.physics import Dynamics
    from atheria.spreading import damage_spreading

    torch.set_num_threads(1)
    chosen = [f"trainer={ARMS[arm]}", *LAW, f"seed={seed}", f"output='{output}'", *overrides]
    config = to_settings(TrainConfig, compose_config("train", chosen))
    torch.manual_seed(seed)
    law = laws.build(config.model, config.physics.boundary)
    if arm != "untrained":
        run = quietly(train, chosen)
        law.load_state_dict(checkpoint.load(run.folder / checkpoint.BEST)["model_state_dict"])
    lattice = Lattice(UNIVERSES, SIDE, SIDE, torch.device("cpu"))
    psi = initial_state.make(config.initial_state, config.model["d_state"], lattice, UNSEEN)
    spreads = {}
    for level in LEVELS:
        channel = noise.channel("seed") if level else None
        found = damage_spreading(Dynamics(law.eval(), config.physics, UNSEEN, channel, level), psi, steps)
        spreads[level] = {
            "radius": found.radius.mean(dim=1).tolist(),
            "fraction": found.fraction.mean(dim=1).tolist(),
            "speed": found.speed.tolist(),
        }
    return spreads


def main() -> None:
    study = Study(__file__, __doc__)
    seeds, steps = ((0,), 8) if study.small else (SEEDS, STEPS)
    small, output = SMALL if study.small else (), str(study.output)
    jobs = [(arm, seed) for arm in ARMS for seed in seeds]
    found = dict(zip(jobs, in_parallel(damages, [(*job, output, small, steps) for job in jobs]), strict=True))

    figure, axes = study.figure(2, len(LEVELS))
    colours = {"untrained": "#56606b", "trained by v3": "#d55e00", "trained by v4": "#0072b2"}
    for column, (level, title) in enumerate(LEVELS.items()):
        for row, name in enumerate(("radius", "fraction")):
            axis = axes[row, column]
            if name == "radius":
                cone = [min(step, SIDE // 2) for step in range(steps + 1)]
                axis.plot(cone, color="black", ls=":", label="one cell a step")
            for arm, seed in jobs:
                legend = arm if seed == seeds[0] else None
                axis.plot(found[arm, seed][level][name], color=colours[arm], alpha=0.7, label=legend)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(title, fontsize=10)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("radius of damage, cells")
    axes[1, 0].set_ylabel("share of damaged cells")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"The loss of one cell of {SIDE} x {SIDE}; one line a seed", fontsize=11)
    rows = [
        [
            arm,
            title,
            spread([found[arm, seed][level]["radius"][-1] for seed in seeds]),
            spread([found[arm, seed][level]["fraction"][-1] for seed in seeds]),
            spread([sum(found[arm, seed][level]["speed"]) / UNIVERSES for seed in seeds]),
        ]
        for level, title in LEVELS.items()
        for arm in ARMS
    ]
    head = ["law", "", "radius at the end, cells", "share of damaged cells", "speed, cells a step"]
    study.finish(figure, table(head, rows))


if __name__ == "__main__":
    main()
