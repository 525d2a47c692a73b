"""The training loop's state and its one step, an episode. Trainers v3 and v4 are configurations of it.

An episode draws a batch of universes, fresh or from the pool, rolls it out under the law and the noise of
the curriculum, and takes one optimiser step on the objective.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from atheria import checkpoint, curriculum, initial_state, noise, observables, vacuum
from atheria.config import TrainConfig, TrainerConfig, UserError
from atheria.field import energy_density, total_energy
from atheria.laws import Law, initial_memory
from atheria.losses import Evaluation, Objective, Trajectory
from atheria.optimizers import eager
from atheria.phases import Phase, all_phases, phase_of
from atheria.philox import LENGTH, Draws, Lattice
from atheria.physics import Dynamics, State
from atheria.pool import Pool
from atheria.probability import ratio
from atheria.ranks import Ranks

SMALL = 4096
"""Cells of a batch up to which a law without pooling is faster on one thread: 32 x 32 cells, 4 universes."""

_HELD_OUT = 1 << 63
"""Flips the seed's highest bit: evaluation never sees a number that training drew."""


class Trainer:
    """Trains a law, episode by episode.

    Args:
        law: The law, on `device`; its weights are changed, to float64 where the precision is.
        config: The whole configuration of the run.
        device: Where to compute.
        ranks: The processes that train the law together, an episode in step; None for this one alone.

    Raises:
        UserError: Settings contradict each other, or the objective or the noise names what does not exist
            or does not suit a grid.
    """

    def __init__(
        self, law: Law, config: TrainConfig, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        settings = config.trainer
        self._ranks = ranks or Ranks()
        check_settings(settings, self._ranks.place.size)
        vacuum.check(law, config.physics)
        self._dtype = torch.float64 if settings.precision == "fp64" else torch.float32
        self.law = law.to(self._dtype)
        self.episode = 0
        self._config = config
        self._device = device
        self._network = cast(nn.Module, torch.compile(law)) if settings.compile else law
        self._channels_last = _channels_last(law, settings, device)
        self._objective = Objective(settings.loss)
        self._channel = noise.channel(config.noise.name)
        self._curriculum = curriculum.make(config.noise.curriculum, config.noise.level, settings.episodes)
        optimizer = eager({"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer])
        self._optimizer = optimizer(law.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self._scheduler = _scheduler(self._optimizer, settings)
        self._pool: Pool | None = None
        self._clock = 0  # steps of all episodes so far: counter of the randomness
        for phase in all_phases(settings):
            self._check_grid(phase.grid)

    def train_episode(self) -> dict[str, float]:
        """Trains on one batch of universes; returns the metrics ``train/...``.

        Raises:
            UserError: The loss is no longer finite.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads(before))
        try:
            return self._train_episode()
        finally:
            torch.set_num_threads(before)

    def _threads(self, otherwise: int) -> int:
        """Threads for an episode of the phase that it is in."""
        settings = self._config.trainer
        height, width = phase_of(self.episode, settings).grid
        _, universes = self._ranks.share(settings.batch_size)
        is_small = self.law.stride == 1 and universes * height * width <= SMALL
        return settings.threads or (1 if is_small else otherwise)

    def _train_episode(self) -> dict[str, float]:
        settings = self._config.trainer
        phase = phase_of(self.episode, settings)
        level = phase.noise * self._curriculum.level(self.episode) if self._channel else 0.0
        batch, places = self._draw_batch(phase)
        steps = self._rollout_length(phase)
        first, _ = self._ranks.share(settings.batch_size)
        dynamics = self._dynamics(self._config.seed, level, first)
        reference = total_energy(batch.initial)
        state = State(batch.psi, batch.memory, reference, self._clock, batch.psi)

        self._optimizer.zero_grad(set_to_none=True)
        segments = _segments(steps, settings.truncate)
        evaluations = []
        for length in segments:
            state, rolled = self._roll(dynamics, state.detached(), batch.initial, length)
            evaluation = self._objective(rolled)
            self._check_finite(evaluation.loss)
            loss = evaluation.loss.mean() / len(segments)
            loss.backward()  # type: ignore[no-untyped-call]
            evaluations.append(evaluation)
        learning_rate = self._optimizer.param_groups[0]["lr"]
        gradient_norm = self._descend()

        state, last = state.detached(), evaluations[-1]
        if self._pool is not None and places is not None:
            after = Pool(batch.initial, state.psi, state.memory, last.loss.detach())
            self._pool.put(places, self._whole(after))
        surviving = (total_energy(state.psi) / reference.clamp_min(1e-12)).mean()
        means = self._means(_mean(evaluations) | {"surviving": surviving})
        self._curriculum.update(means["loss"], means.pop("surviving"))
        self._clock += steps
        self.episode += 1
        return {
            **{f"train/{name}": value for name, value in means.items()},
            **{f"train/weighted/{name}": w * means[name] for name, w in self._objective.weights.items()},
            "train/noise_level": level,
            "train/gradient_norm": gradient_norm,
            "train/lr": learning_rate,
            "train/steps": float(steps),
            "train/phase": float(phase.number),
        }

    def evaluate(self) -> dict[str, float]:
        """The metrics ``eval/...``, on held-out initial states.

        The states are the same at every evaluation and for every law of the same seed. ``eval/loss`` and
        the observables are those without noise, ``eval/noisy/...`` those under the training's noise at its
        highest level. ``eval/symmetry_per_rho``, where symmetry is a term of the objective, is that term
        divided by mean rho, which decay alone does not lower. ``eval/selection`` is the mean of both
        losses: what the best law and a plateau of the learning rate are told by.
        """
        rolled, evaluation = self._evaluate_at(0.0)
        final = rolled.final
        measured = observables.measure(final, self._config.physics.boundary == "torus")
        everything = _mean([evaluation]) | measured | observables.compare(rolled.initial, final)
        energies = (total_energy(psi.double()) for psi in (rolled.previous, final))
        everything["step_drift"] = observables.drift(*energies)
        if "symmetry" in evaluation.terms:
            rho = energy_density(final).mean(dim=(1, 2))
            everything["symmetry_per_rho"] = ratio(evaluation.terms["symmetry"], rho)
        metrics = {f"eval/{name}": value.mean().item() for name, value in everything.items()}
        losses = [metrics["eval/loss"]]
        if self._channel is not None:
            _, evaluation = self._evaluate_at(self._config.noise.level)
            metrics |= {f"eval/noisy/{name}": value.item() for name, value in _mean([evaluation]).items()}
            losses.append(metrics["eval/noisy/loss"])
        return metrics | {"eval/selection": sum(losses) / len(losses)}

    @torch.no_grad()
    def _evaluate_at(self, level: float) -> tuple[Trajectory, Evaluation]:
        """The held-out universes up to the horizon, and the objective there."""
        settings = self._config.trainer
        dynamics = self._dynamics(self._config.seed ^ _HELD_OUT, level)
        initial = self._initial_states(settings.eval_universes, dynamics.seed, 0, settings.grid)
        self.law.eval()
        _, rolled = self._roll(dynamics, dynamics.start(initial), initial, self.horizon)
        self.law.train()
        return rolled, self._objective(rolled)

    @torch.no_grad()
    def held_out_rollout(self, steps: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Steps and fields (2d, H, W) of a held-out universe, without noise.

        Args:
            steps: How many; None for the evaluation's horizon.
        """
        settings = self._config.trainer
        dynamics = self._dynamics(self._config.seed ^ _HELD_OUT, level=0.0)
        state = dynamics.start(self._initial_states(1, dynamics.seed, 0, settings.grid))
        was_training = self.law.training
        self.law.eval()
        yield 0, state.psi[0]
        for step in range(1, (self.horizon if steps is None else steps) + 1):
            state = dynamics.step(state)
            yield step, state.psi[0]
        self.law.train(was_training)

    @property
    def horizon(self) -> int:
        """Steps of an evaluation."""
        return self._config.trainer.eval_steps or self._config.trainer.steps

    def step_scheduler(self, loss: float) -> None:
        """Tells the learning-rate schedule the loss of an evaluation.

        That of one training batch is too noisy to tell a plateau by.
        """
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, in a checkpoint's keys."""
        return {
            "model_state_dict": self.law.state_dict(),
            "episode": self.episode,
            "optimizer_state_dict": self._optimizer.state_dict(),
            "scheduler_state_dict": self._scheduler.state_dict() if self._scheduler else None,
            "curriculum_state": self._curriculum.state_dict(),
            "pool": self._pool.state_dict() if self._pool else None,
            # Our draws depend on seed, episode and step alone; torch's position is for laws of others.
            "rng": {
                "seed": self._config.seed,
                "episode": self.episode,
                "step": self._clock,
                "torch": torch.get_rng_state(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the state of a checkpoint; a part that is None begins anew."""
        checkpoint.load_weights(self.law, state, "the checkpoint")
        if state["optimizer_state_dict"] is not None:
            self._optimizer.load_state_dict(state["optimizer_state_dict"])
        if self._scheduler is not None and state["scheduler_state_dict"] is not None:
            self._scheduler.load_state_dict(state["scheduler_state_dict"])
        if state["curriculum_state"] is not None:
            self._curriculum.load_state_dict(state["curriculum_state"])
        pool = {name: tensor.to(self._device, self._dtype) for name, tensor in (state["pool"] or {}).items()}
        self._pool = Pool.from_state_dict(pool) if pool else None
        self._clock = state["rng"]["step"]
        torch.set_rng_state(state["rng"]["torch"].cpu())
        self.episode = state["episode"]

    def _draw_batch(self, phase: Phase) -> tuple[Pool, Tensor | None]:
        """This process' universes of an episode, and the places of all in the pool."""
        settings = self._config.trainer
        first, universes = self._ranks.share(settings.batch_size)
        if settings.pool == 0:
            return self._fresh(universes, phase, first), None
        if self._pool is None or list(self._pool.psi.shape[-2:]) != list(phase.grid):
            self._pool = self._fresh(settings.pool, phase)
        places = self._pool.sample(settings.batch_size, self._config.seed, self.episode)
        batch = self._pool.take(places)
        worst = batch.loss.argmax().unsqueeze(0)
        batch.put(worst, self._fresh(1, phase, first=settings.pool))
        torus = self._config.physics.boundary == "torus"
        batch.damage(settings.damage, self._config.seed, self.episode, torus)
        return batch.take(torch.arange(first, first + universes, device=self._device)), places

    def _whole(self, part: Pool) -> Pool:
        """The batch that the processes have parts of: every process keeps the whole pool."""
        parts = part.state_dict()
        return Pool.from_state_dict({name: self._ranks.gather(tensor) for name, tensor in parts.items()})

    def _means(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over the whole batch, of those over this process' part."""
        return self._ranks.mean({name: value.item() for name, value in values.items()})

    def _fresh(self, universes: int, phase: Phase, first: int = 0) -> Pool:
        initial = self._initial_states(universes, self._config.seed, self.episode + 1, phase.grid, first)
        return Pool.fresh(initial, initial_memory(self.law, initial))

    def _rollout_length(self, phase: Phase) -> int:
        shortest = min(self._config.trainer.steps_min or phase.steps, phase.steps)
        origin = Lattice(1, 1, 1, self._device)
        word = Draws(self._config.seed, origin, self.episode, LENGTH).words(1).item()
        return shortest + ((int(word) * (phase.steps - shortest + 1)) >> 32)

    def _roll(
        self, dynamics: Dynamics, state: State, initial: Tensor, steps: int
    ) -> tuple[State, Trajectory]:
        before = dynamics.rollout(state, steps - 1)
        after = dynamics.step(before)
        return after, Trajectory(initial, before.psi, after.psi, after.unnormalised)

    def _descend(self) -> float:
        """One optimiser step; returns the norm of the gradient as it was."""
        settings = self._config.trainer
        gradients = [p.grad for p in self.law.parameters() if p.grad is not None]
        self._ranks.average(gradients)
        norm = nn.utils.get_total_norm(gradients)
        if settings.normalise_gradients:
            for gradient in gradients:
                gradient /= gradient.norm() + 1e-8
        nn.utils.clip_grad_norm_(self.law.parameters(), settings.clip)
        self._optimizer.step()
        if isinstance(self._scheduler, CosineAnnealingLR):
            self._scheduler.step()
        return norm.item()

    def _check_finite(self, loss: Tensor) -> None:
        if self._ranks.highest(not torch.isfinite(loss).all()):
            mean = self._means({"loss": loss.mean()})["loss"]
            raise UserError(
                f"the loss is {mean} at episode {self.episode + 1}; lower `trainer.lr` or "
                "`trainer.steps`, or normalise: physics.normalise=cell"
            )

    def _initial_states(
        self, universes: int, seed: int, step: int, grid: Sequence[int], first: int = 0
    ) -> Tensor:
        height, width = grid
        lattice = Lattice(universes, height, width, self._device, first)
        d_state = self._config.model["d_state"]
        return initial_state.make(self._config.initial_state, d_state, lattice, seed, step, self._dtype)

    def _dynamics(self, seed: int, level: float, first_universe: int = 0) -> Dynamics:
        return Dynamics(
            self._network if torch.is_grad_enabled() else self.law,
            self._config.physics,
            seed,
            self._channel if level > 0 else None,
            level,
            half_precision=self._config.trainer.precision == "bf16",
            channels_last=self._channels_last,
            gradient_checkpointing=self._config.trainer.gradient_checkpointing,
            first_universe=first_universe,
        )

    def _check_grid(self, grid: Sequence[int]) -> None:
        stride = self.law.stride
        if any(side % stride for side in grid):
            raise UserError(f"`trainer.grid` must be multiples of the law's stride {stride}, got {grid}")
        probe = self._initial_states(1, self._config.seed, 0, grid)
        self._objective(Trajectory(probe, probe, probe, probe))  # raises where a term does not suit the grid
        if self._channel is not None:
            noise.apply(self._channel, probe, self._config.noise.level, self._config.seed, 0)


def check_settings(settings: TrainerConfig, processes: int = 1) -> None:
    """Raises UserError where the trainer's settings contradict each other, or do not suit the processes."""
    if settings.batch_size % processes:
        whole = processes * -(-settings.batch_size // processes)
        raise UserError(
            f"`trainer.batch_size` must be a multiple of the {processes} processes that train the run, "
            f"got {settings.batch_size}; as trainer.batch_size={whole}"
        )
    if settings.steps_min is not None and settings.steps_min > settings.steps:
        raise UserError(
            f"`trainer.steps_min` must be at most `trainer.steps` {settings.steps}, got {settings.steps_min}"
        )
    if 0 < settings.pool < settings.batch_size:
        raise UserError(
            f"`trainer.pool` must be 0 or at least `trainer.batch_size` {settings.batch_size}, "
            f"got {settings.pool}"
        )
    if settings.damage > 0 and settings.pool == 0:
        raise UserError("`trainer.damage` needs a pool, whose universes it damages; as trainer.pool=64")
    if settings.damage >= settings.batch_size:
        raise UserError(
            f"`trainer.damage` must be below `trainer.batch_size` {settings.batch_size}, "
            f"got {settings.damage}"
        )
    beginning = sum(phase.episodes for phase in settings.phases)
    if beginning >= settings.episodes:
        raise UserError(
            f"`trainer.episodes` must be more than the {beginning} of `trainer.phases`, "
            f"got {settings.episodes}: the trainer's own grid and steps come last"
        )


def _scheduler(optimizer: Optimizer, settings: TrainerConfig) -> ReduceLROnPlateau | CosineAnnealingLR | None:
    match settings.scheduler:
        case "plateau":
            return ReduceLROnPlateau(optimizer, patience=settings.patience)
        case "cosine":
            return CosineAnnealingLR(optimizer, settings.episodes, eta_min=settings.lr / 100)
    return None


def cosine_at(episode: int, settings: TrainerConfig) -> tuple[float, dict[str, Any]]:
    """The learning rate of the schedule ``cosine`` at an episode, and the state of its scheduler there."""
    lowest = settings.lr / 100
    rate = lowest + (settings.lr - lowest) * (1 + math.cos(math.pi * episode / settings.episodes)) / 2
    return rate, {
        "T_max": settings.episodes,
        "eta_min": lowest,
        "base_lrs": [settings.lr],
        "last_epoch": episode,
        "_last_lr": [rate],
    }


def _channels_last(law: Law, settings: TrainerConfig, device: torch.device) -> bool:
    """The memory order that is wanted, or else the one that was measured to be faster (docs/training.md)."""
    if settings.channels_last is not None:
        return settings.channels_last
    measured = device.type == "cpu" and settings.precision == "fp32"
    return measured and getattr(law, "channels_last", False)


def _segments(steps: int, longest: int | None) -> list[int]:
    """`steps` in as few parts of nearly equal length as are at most `longest`."""
    parts = -(-steps // (longest or steps))
    return [steps // parts + (part < steps % parts) for part in range(parts)]


def _mean(evaluations: Sequence[Evaluation]) -> dict[str, Tensor]:
    """Loss and terms, averaged over evaluations and universes."""
    entries = [{"loss": evaluation.loss, **evaluation.terms} for evaluation in evaluations]
    return {name: torch.stack([entry[name].detach() for entry in entries]).mean() for name in entries[0]}
