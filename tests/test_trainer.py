"""The training loop without a store: every option of the trainer, on the default configuration made small."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from atheria import checkpoint
from atheria.cli import compose_config, to_settings
from atheria.config import TrainConfig, UserError
from atheria.field import total_energy
from atheria.laws import build
from atheria.losses import Objective, Trajectory
from atheria.optimizers import eager
from atheria.phases import phase_of
from atheria.physics import Dynamics
from atheria.trainer import Trainer

from .conftest import SMALL, assert_same, train_settings


def trainer_of(*overrides: str) -> Trainer:
    settings = train_settings(*overrides)
    torch.manual_seed(0)
    law = build(settings.model, settings.physics.boundary)
    torch.nn.init.normal_(law.outc.weight, std=0.05)  # a law that does something
    return Trainer(law, settings, torch.device("cpu"))


def weights_after(episodes: int, *overrides: str) -> torch.Tensor:
    trainer = trainer_of(*overrides)
    for _ in range(episodes):
        trainer.train_episode()
    return torch.cat([p.detach().flatten() for p in trainer.law.parameters()])


def gradients_after_one_episode(trainer: Trainer) -> torch.Tensor:
    """What an episode's gradient is, read off plain gradient descent."""
    trainer._optimizer = torch.optim.SGD(trainer.law.parameters(), lr=1.0)
    before = torch.cat([p.detach().clone().flatten() for p in trainer.law.parameters()])
    trainer.train_episode()
    return before - torch.cat([p.detach().flatten() for p in trainer.law.parameters()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_checkpointing_changes_nothing(precision: str) -> None:
    options = (f"trainer.precision={precision}", "physics.fire_rate=0.5", "noise/curriculum=constant")
    kept = weights_after(3, *options)
    assert torch.equal(kept, weights_after(3, *options, "trainer.gradient_checkpointing=true"))


def test_a_truncated_gradient_reaches_back_one_segment() -> None:
    """By hand: the loss at the end of every segment, each from a detached state."""
    options = ("noise=none", "trainer.clip=1e9", "trainer.steps=5")
    trainer = trainer_of(*options, "trainer.truncate=2")
    config = trainer._config
    law, objective = trainer.law, Objective(config.trainer.loss)
    initial = trainer._fresh(2, phase_of(0, config.trainer)).initial
    state = Dynamics(law, config.physics, seed=0).start(initial)
    loss = torch.zeros(())
    for length in (2, 2, 1):
        state = state._replace(psi=state.psi.detach())
        for _ in range(length):
            before = state
            state = Dynamics(law, config.physics, seed=0).step(state)
        loss = loss + objective(Trajectory(initial, before.psi, state.psi, state.psi)).loss.mean() / 3
    by_hand = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(law.parameters()))])
    torch.testing.assert_close(gradients_after_one_episode(trainer), by_hand, atol=1e-5, rtol=1e-4)
    whole = gradients_after_one_episode(trainer_of(*options))
    assert (whole - by_hand).abs().max() > 1e-3
    assert torch.equal(whole, gradients_after_one_episode(trainer_of(*options, "trainer.truncate=5")))


def test_rollout_lengths_are_drawn_from_the_whole_range() -> None:
    trainer = trainer_of("trainer.steps_min=1", "trainer.steps=4", "trainer.grid=4")
    lengths = Counter(int(trainer.train_episode()["train/steps"]) for _ in range(60))
    assert set(lengths) == {1, 2, 3, 4}
    assert trainer.state_dict()["rng"]["step"] == sum(n * count for n, count in lengths.items())


def test_each_parameters_gradient_can_be_normalised() -> None:
    trainer = trainer_of("trainer.normalise_gradients=true", "trainer.clip=1e9")
    moved = gradients_after_one_episode(trainer)
    sizes = [p.numel() for p in trainer.law.parameters()]
    norms = torch.stack([part.norm() for part in moved.split(sizes)])
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-3, rtol=0)


def test_a_pool_goes_on_from_where_its_universes_are() -> None:
    trainer = trainer_of("trainer.pool=8", "trainer.batch_size=3", "noise=none")
    beginning = trainer._fresh(8, phase_of(0, trainer._config.trainer)).initial
    trainer.train_episode()
    pool = trainer._pool
    assert pool is not None
    rolled = pool.loss > -torch.inf
    assert rolled.sum() == 3
    assert torch.equal(pool.psi[~rolled], beginning[~rolled])
    assert (pool.psi[rolled] != pool.initial[rolled]).flatten(1).any(dim=1).all()
    survivors = pool.psi.clone()
    trainer.train_episode()
    places = trainer._pool.sample(3, 0, 1)
    untouched = [k for k in range(8) if k not in places.tolist()]
    assert torch.equal(pool.psi[untouched], survivors[untouched])


def test_the_worst_of_a_batch_is_replaced_by_a_fresh_universe() -> None:
    trainer = trainer_of("trainer.pool=4", "trainer.batch_size=4", "noise=none")
    for _ in range(3):
        trainer.train_episode()
    pool = trainer._pool
    assert pool is not None
    worst, before = int(pool.loss.argmax()), pool.initial.clone()
    batch, places = trainer._draw_batch(phase_of(trainer.episode, trainer._config.trainer))
    assert places is not None
    for index, place in enumerate(places.tolist()):
        fresh = torch.equal(batch.psi[index], batch.initial[index])
        assert fresh is (place == worst)
        assert torch.equal(batch.initial[index], before[place]) is (place != worst)


def test_energy_of_pooled_universes_is_measured_against_their_own_beginning() -> None:
    trainer = trainer_of("trainer.pool=2", "trainer.batch_size=2", "noise=none", "trainer.lr=1e-12",
                         "physics.gamma=0.5", "trainer.weight_decay=0")  # fmt: skip
    torch.nn.init.zeros_(trainer.law.outc.weight)
    torch.nn.init.zeros_(trainer.law.outc.bias)
    trainer.train_episode()
    metrics = trainer.train_episode()
    left = [0.25**3, 0.25**6]  # one universe is fresh, the other goes on for three more steps
    assert metrics["train/survival"] == pytest.approx(sum(0.8 - share for share in left) / 2, rel=1e-3)


def test_damage_empties_cells_of_pooled_universes() -> None:
    options = ("trainer.pool=4", "trainer.batch_size=4", "noise=none")
    whole, damaged = (trainer_of(*options, f"trainer.damage={n}") for n in (0, 2))
    for trainer in (whole, damaged):
        trainer.train_episode()
    energies = [total_energy(t._draw_batch(phase_of(1, t._config.trainer))[0].psi) for t in (whole, damaged)]
    assert (energies[1] < energies[0]).sum() == 2


def test_a_memory_is_carried_in_the_pool() -> None:
    settings = to_settings(
        TrainConfig,
        compose_config(
            "train",
            ["model=unet_convlstm", "model.d_state=2", "model.hidden_channels=4", "trainer.pool=4",
             "trainer.batch_size=2", "trainer.grid=8", "trainer.steps=2"],
        ),
    )  # fmt: skip
    trainer = Trainer(build(settings.model, "torus"), settings, torch.device("cpu"))
    trainer.train_episode()
    memory = trainer._pool.memory
    assert (memory.flatten(1).abs().sum(dim=1) > 0).sum() == 2
    assert not memory.requires_grad


def test_phases_change_grid_steps_and_noise_in_one_run() -> None:
    phases = "trainer.phases=[{episodes: 2, grid: 4, steps: 1, noise: 0.0}, {episodes: 1, grid: [8, 8], steps: 2, noise: 0.5}]"  # noqa: E501
    trainer = trainer_of(phases, "trainer.pool=2", "noise/curriculum=constant", "noise.level=0.2",
                         "trainer.grid=12", "trainer.steps=3")  # fmt: skip
    seen = []
    for _ in range(4):
        metrics = trainer.train_episode()
        side = trainer._pool.psi.shape[-1]
        seen.append((metrics["train/phase"], side, metrics["train/steps"], metrics["train/noise_level"]))
    assert seen == [(0, 4, 1, 0), (0, 4, 1, 0), (1, 8, 2, pytest.approx(0.1)), (2, 12, 3, pytest.approx(0.2))]


def test_the_progressive_experiment_grows() -> None:
    settings = to_settings(TrainConfig, compose_config("train", ["experiment=progressive"])).trainer
    episodes = range(0, settings.episodes, 10)
    grown = [phase_of(e, settings) for e in episodes]
    for before, after in pairwise(grown):
        assert all(a <= b for a, b in zip(before, after, strict=True))
    assert grown[0].grid < grown[-1].grid
    assert grown[0].noise == 0.0


EVERYTHING = (
    "physics.fire_rate=0.5", "trainer.pool=6", "trainer.batch_size=3", "trainer.damage=1",
    "trainer.steps_min=1", "trainer.truncate=2", "trainer.normalise_gradients=true",
    "trainer.phases=[{episodes: 2, grid: 4, steps: 2}]", "noise.level=0.3",
)  # fmt: skip


def test_the_cosine_schedule_lowers_the_learning_rate_to_a_hundredth() -> None:
    trainer = trainer_of("trainer.scheduler=cosine", "trainer.lr=1e-3", "trainer.episodes=4")
    rates = [trainer.train_episode()["train/lr"] for _ in range(4)]
    assert rates == pytest.approx([1e-3, 8.55e-4, 5.05e-4, 1.55e-4], rel=1e-2)


@pytest.mark.parametrize("trainer_name", ["v3", "v4"])
@pytest.mark.parametrize("scheduler", ["plateau", "cosine"])
@pytest.mark.parametrize("curriculum", ["constant", "linear", "cosine", "steps", "adaptive"])
def test_a_trainer_continues_from_its_checkpoint_bit_for_bit(
    trainer_name: str, scheduler: str, curriculum: str
) -> None:
    adaptive = ["noise.curriculum.patience=1"] if curriculum == "adaptive" else []
    options = [f"trainer={trainer_name}", "noise=seed", f"noise/curriculum={curriculum}", *adaptive]
    options += [*EVERYTHING, f"trainer.scheduler={scheduler}", "trainer.episodes=8"]
    whole, first, second = (trainer_of(*options) for _ in range(3))

    def advance(trainer: Trainer, episodes: int) -> dict[str, float]:
        for _ in range(episodes):
            metrics = trainer.train_episode()
            trainer.step_scheduler(metrics["train/loss"])
        return metrics

    expected = advance(whole, 8)
    advance(first, 3)
    checkpoint.save(first.state_dict() | {"config": {}}, Path("half.pth"))
    second.load_state_dict(checkpoint.load(Path("half.pth")))
    assert advance(second, 5) == expected
    for name, value in whole.law.state_dict().items():
        assert torch.equal(value, second.law.state_dict()[name])


def test_every_term_of_the_default_v4_moves_the_law() -> None:
    """The gradient of each weighted term on the law's parameters, at the start and further on."""
    config = to_settings(TrainConfig, compose_config("train", []))
    torch.manual_seed(config.seed)
    trainer = Trainer(build(config.model, config.physics.boundary), config, torch.device("cpu"))
    assert set(config.trainer.loss) == {"survival", "symmetry", "complexity"}
    for _ in range(2):
        batch, _ = trainer._draw_batch(phase_of(trainer.episode, config.trainer))
        dynamics = trainer._dynamics(config.seed, level=0.05)
        _, rolled = trainer._roll(dynamics, dynamics.start(batch.psi), batch.initial, config.trainer.steps)
        for name, term in trainer._objective(rolled).terms.items():
            loss = config.trainer.loss[name] * term.mean()
            gradients = torch.autograd.grad(loss, list(trainer.law.parameters()), retain_graph=True)
            norm = torch.stack([g.norm() for g in gradients]).norm().item()
            print(f"episode {trainer.episode}: |gradient of {name}| = {norm:.3g}")
            assert norm > 1e-2, name
        for _ in range(3):
            trainer.train_episode()


def test_terms_are_logged_raw_and_weighted() -> None:
    metrics = trainer_of().train_episode()
    weights = {"survival": 10.0, "symmetry": 5.0, "complexity": 1.0}
    for name, weight in weights.items():
        assert metrics[f"train/weighted/{name}"] == pytest.approx(weight * metrics[f"train/{name}"])
    assert sum(metrics[f"train/weighted/{name}"] for name in weights) == pytest.approx(
        metrics["train/loss"], rel=1e-5
    )


def test_the_best_law_is_chosen_without_noise_and_under_it() -> None:
    noisy = trainer_of("noise=phase_flip", "noise.level=0.9").evaluate()
    quiet = trainer_of("noise=none").evaluate()
    assert noisy["eval/loss"] == quiet["eval/loss"] == quiet["eval/selection"]
    assert noisy["eval/noisy/loss"] != noisy["eval/loss"]
    assert noisy["eval/selection"] == pytest.approx((noisy["eval/loss"] + noisy["eval/noisy/loss"]) / 2)
    assert "eval/noisy/loss" not in quiet


def test_decay_lowers_symmetry_but_not_per_mean_density() -> None:
    still = ("noise=none", "trainer.eval_universes=1")
    decays = [trainer_of(*still, f"physics.gamma={gamma}") for gamma in (0.0, 0.5)]
    for trainer in decays:
        torch.nn.init.zeros_(trainer.law.outc.weight)
    whole, decayed = (trainer.evaluate() for trainer in decays)
    assert decayed["eval/symmetry"] == pytest.approx(0.25**3 * whole["eval/symmetry"], rel=1e-3)
    assert decayed["eval/symmetry_per_rho"] == pytest.approx(whole["eval/symmetry_per_rho"], rel=1e-3)
    rho = whole["eval/energy"] / (8 * 8)
    assert whole["eval/symmetry_per_rho"] == pytest.approx(whole["eval/symmetry"] / rho, rel=1e-5)
    assert "eval/symmetry_per_rho" not in trainer_of("trainer=v3").evaluate()


def test_an_evaluation_has_a_horizon_of_its_own() -> None:
    still = ("noise=none", "physics.gamma=0.1", "trainer.steps=3")
    trainers = [trainer_of(*still), trainer_of(*still, "trainer.eval_steps=10")]
    for trainer in trainers:
        torch.nn.init.zeros_(trainer.law.outc.weight)
    short, long = (trainer.evaluate()["eval/norm_drift"] for trainer in trainers)
    assert short == pytest.approx(1 - 0.9**6, rel=1e-4)
    assert long == pytest.approx(1 - 0.9**20, rel=1e-4)
    assert len([*trainers[1].held_out_rollout()]) == 11
    for trainer in trainers:
        assert trainer.evaluate()["eval/step_drift"] == pytest.approx(1 - 0.9**2, rel=1e-4)


def test_extra_terms_can_be_added() -> None:
    extras = ["energy", "sparsity", "total_variation", "overflow", "step_difference"]
    metrics = trainer_of(*(f"+trainer.loss.{name}=0.5" for name in extras)).train_episode()
    assert {f"train/{name}" for name in extras} <= set(metrics)


def test_the_adaptive_curriculum_hears_of_the_training() -> None:
    trainer = trainer_of("noise/curriculum=adaptive", "noise.curriculum.patience=1", "noise.level=0.5",
                         "noise.curriculum.surviving=0.0", "trainer.lr=1e-9")  # fmt: skip
    levels = [trainer.train_episode()["train/noise_level"] for _ in range(12)]
    assert levels[0] == 0
    assert max(levels) > 0


def test_small_laws_train_on_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads_used(*overrides: str) -> int:
        options = ["model.d_state=2", "trainer.steps=1", "trainer.grid=8", "trainer.batch_size=2", *overrides]
        settings = to_settings(TrainConfig, compose_config("train", options))
        trainer = Trainer(build(settings.model, "torus"), settings, torch.device("cpu"))
        used = []
        monkeypatch.setattr(trainer, "_train_episode", lambda: used.append(torch.get_num_threads()) or {})
        trainer.train_episode()
        return used[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert threads_used("model=mlp") == 1
        assert threads_used("model=mlp", "trainer.threads=2") == 2
        assert threads_used("model=mlp", "trainer.grid=64") == 2
        assert threads_used("model=unet") == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_an_optimizer_steps_and_saves_as_torchs_own(kind: type[torch.optim.Optimizer]) -> None:
    ends = []
    for chosen in (kind, eager(kind)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = chosen(layer.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(3)).square().sum().backward()
            optimizer.step()
        again = kind(layer.parameters(), lr=0.2)
        again.load_state_dict(optimizer.state_dict())
        ends.append((layer.state_dict(), again.state_dict()))
    assert_same(*ends)


def test_a_training_leaves_torchs_compiler_alone() -> None:
    script = f"import sys; from atheria.train import train; train({list(SMALL)}); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "torch.optim.adamw" in ended.stdout.split()
    assert "torch._dynamo" not in ended.stdout.split()


@pytest.mark.slow
def test_a_compiled_law_trains_alike() -> None:
    plain = weights_after(2, "trainer.lr=1e-3")
    torch.testing.assert_close(
        weights_after(2, "trainer.lr=1e-3", "trainer.compile=true"), plain, atol=3e-3, rtol=0
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.steps_min=9"], "`trainer.steps_min` must be at most `trainer.steps` 3, got 9"),
        (["trainer.pool=1"], "`trainer.pool` must be 0 or at least `trainer.batch_size` 2, got 1"),
        (["trainer.damage=1"], "`trainer.damage` needs a pool"),
        (["trainer.pool=4", "trainer.damage=2"], "`trainer.damage` must be below `trainer.batch_size` 2"),
        (
            ["trainer.phases=[{episodes: 9, grid: 8, steps: 2}]"],
            "`trainer.episodes` must be more than the 9 of `trainer.phases`, got 4",
        ),
        (
            ["trainer.phases=[{episodes: 1, grid: 6, steps: 2}]"],
            "`trainer.grid` must be multiples of the law's stride 4, got [6, 6]",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        trainer_of(*overrides)
    assert str(error.value).startswith(message)
