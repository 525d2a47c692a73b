"""The training loop's state and its one step, an episode. Trainers v3 and v4 are configurations of it.

An episode draws a batch of initial states, rolls it out under the law and the noise of the curriculum,
and takes one optimiser step on the objective.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from atheria import initial_state, noise, observables
from atheria.config import TrainConfig, UserError
from atheria.curriculum import Curriculum
from atheria.laws import Law
from atheria.losses import Objective
from atheria.philox import Lattice
from atheria.physics import Dynamics

_HELD_OUT = 1 << 63
"""Flips the seed's highest bit: evaluation never sees a number that training drew."""


class Trainer:
    """Trains a law, episode by episode.

    Args:
        law: The law, on `device`; its weights are changed.
        config: The whole configuration of the run.
        device: Where to compute.

    Raises:
        UserError: The objective or the noise names what does not exist, or does not suit the grid.
    """

    def __init__(self, law: Law, config: TrainConfig, device: torch.device) -> None:
        settings = config.trainer
        self.law = law
        self.episode = 0
        self._config = config
        self._device = device
        self._objective = Objective(settings.loss)
        self._channel = noise.channel(config.noise.name)
        self._curriculum = Curriculum(config.noise.curriculum, config.noise.level, settings.episodes)
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
        self._optimizer = optimizer(law.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        # One step an evaluation: the training loss of one batch is too noisy to tell a plateau by.
        self._scheduler = (
            ReduceLROnPlateau(self._optimizer, patience=settings.patience)
            if settings.scheduler == "plateau"
            else None
        )
        self._check_grid()

    def train_episode(self) -> dict[str, float]:
        """Trains on one batch of universes; returns the metrics ``train/...``.

        Raises:
            UserError: The loss is no longer finite.
        """
        settings = self._config.trainer
        level = self._curriculum.level(self.episode) if self._channel else 0.0
        initial = self._initial_states(settings.batch_size, self._config.seed, self.episode + 1)
        dynamics = self._dynamics(self._config.seed, level)
        state = dynamics.start(initial, step=self.episode * settings.steps)
        final = dynamics.rollout(state, settings.steps).psi
        loss, terms = self._objective(initial, final)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} at episode {self.episode + 1}; lower `trainer.lr` or "
                "`trainer.steps`, or normalise: physics.normalise=cell"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.law.parameters(), settings.clip)
        self._optimizer.step()
        self.episode += 1
        return {
            "train/loss": loss.item(),
            **{f"train/{name}": term.item() for name, term in terms.items()},
            "train/noise_level": level,
            "train/gradient_norm": norm.item(),
            "train/lr": self._optimizer.param_groups[0]["lr"],
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The metrics ``eval/...``, on held-out initial states and without noise.

        The states are the same at every evaluation and for every law of the same seed.
        """
        seed = self._config.seed ^ _HELD_OUT
        initial = self._initial_states(self._config.trainer.eval_universes, seed, 0)
        dynamics = self._dynamics(seed, level=0.0)
        self.law.eval()
        final = dynamics.rollout(dynamics.start(initial), self._config.trainer.steps).psi
        self.law.train()
        loss, terms = self._objective(initial, final)
        measured = observables.observe(final, self._config.physics.boundary == "torus")
        return {
            "eval/loss": loss.item(),
            **{f"eval/{name}": term.item() for name, term in terms.items()},
            **{f"eval/{name}": value.mean().item() for name, value in measured.items()},
        }

    @torch.no_grad()
    def held_out_rollout(self) -> Iterator[tuple[int, Tensor]]:
        """Steps and fields (2d, H, W) of a held-out universe, from its start to the horizon."""
        dynamics = self._dynamics(self._config.seed ^ _HELD_OUT, level=0.0)
        state = dynamics.start(self._initial_states(1, dynamics.seed, 0))
        yield 0, state.psi[0]
        for step in range(1, self._config.trainer.steps + 1):
            state = dynamics.step(state)
            yield step, state.psi[0]

    def step_scheduler(self, loss: float) -> None:
        """Tells the learning-rate schedule the loss of an evaluation."""
        if self._scheduler is not None:
            self._scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, in a checkpoint's keys."""
        return {
            "model_state_dict": self.law.state_dict(),
            "episode": self.episode,
            "optimizer_state_dict": self._optimizer.state_dict(),
            "scheduler_state_dict": self._scheduler.state_dict() if self._scheduler else None,
            "curriculum_state": self._curriculum.state_dict(),
            "pool": None,
            # Draws depend on the seed and on the episode alone; the position is complete.
            "rng": {"seed": self._config.seed, "episode": self.episode},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the state of a checkpoint."""
        self.law.load_state_dict(state["model_state_dict"])
        self._optimizer.load_state_dict(state["optimizer_state_dict"])
        if self._scheduler is not None and state["scheduler_state_dict"] is not None:
            self._scheduler.load_state_dict(state["scheduler_state_dict"])
        self._curriculum.load_state_dict(state["curriculum_state"])
        self.episode = state["episode"]

    def _initial_states(self, universes: int, seed: int, step: int) -> Tensor:
        height, width = self._config.trainer.grid
        lattice = Lattice(universes, height, width, self._device)
        d_state = self._config.model["d_state"]
        return initial_state.make(self._config.initial_state, d_state, lattice, seed, step)

    def _dynamics(self, seed: int, level: float) -> Dynamics:
        return Dynamics(
            self.law,
            self._config.physics,
            seed,
            self._channel if level > 0 else None,
            level,
            half_precision=self._config.trainer.precision == "bf16",
        )

    def _check_grid(self) -> None:
        stride = self.law.stride
        grid = self._config.trainer.grid
        if any(side % stride for side in grid):
            raise UserError(f"`trainer.grid` must be multiples of the law's stride {stride}, got {grid}")
        probe = self._initial_states(1, self._config.seed, 0)
        self._objective(probe, probe)  # raises where a term does not suit the grid
        if self._channel is not None:
            noise.apply(self._channel, probe, self._config.noise.level, self._config.seed, 0)
