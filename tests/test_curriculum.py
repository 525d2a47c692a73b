import pytest

from atheria import curriculum
from atheria.cli import compose_config, to_settings
from atheria.config import CurriculumConfig, TrainConfig
from atheria.curriculum import Adaptive


def levels(config: CurriculumConfig, *episodes: int, highest: float = 0.05) -> list[float]:
    schedule = curriculum.make(config, highest, episodes=100)
    return [schedule.level(episode) for episode in episodes]


def test_schedules_are_functions_of_the_episode() -> None:
    linear = CurriculumConfig("linear", episodes=100, off_below=0.001)
    assert levels(linear, 0, 1, 50, 100, 500) == pytest.approx([0, 0, 0.025, 0.05, 0.05])
    assert levels(CurriculumConfig("cosine"), 0, 50, 100) == pytest.approx([0, 0.025, 0.05])
    assert levels(CurriculumConfig("constant"), 0) == [0.05]
    steps = CurriculumConfig("steps", stages=5)
    assert levels(steps, 0, 19, 20, 39, 40, 79, 80, 100, 999, highest=0.4) == pytest.approx(
        [0, 0, 0.1, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
    )


def test_the_seeds_curriculum_is_the_default_of_v4() -> None:
    """0 -> 0.05 by episode 2000, off below 0.001."""
    settings = to_settings(TrainConfig, compose_config("train", ["experiment=seed_v4"]))
    schedule = curriculum.make(settings.noise.curriculum, settings.noise.level, settings.trainer.episodes)
    assert [schedule.level(e) for e in (0, 39, 1000, 2000)] == pytest.approx([0, 0, 0.025, 0.05])


def adaptive(**changes) -> Adaptive:
    return Adaptive(CurriculumConfig("adaptive", stages=4, patience=3, surviving=0.5, **changes), 0.4)


def test_the_adaptive_level_rises_on_a_plateau_alone() -> None:
    schedule = adaptive()
    for loss in range(20, 0, -1):
        schedule.update(float(loss), surviving=1.0)
    assert schedule.level(0) == 0.0
    for _ in range(40):
        schedule.update(5.0, surviving=1.0)
    assert schedule.level(0) == pytest.approx(0.4)  # and no further


def test_the_adaptive_level_falls_when_survival_drops() -> None:
    schedule = adaptive()
    for _ in range(40):
        schedule.update(5.0, surviving=1.0)
    high = schedule.level(0)
    for _ in range(3):  # until the running mean is below a half
        schedule.update(5.0, surviving=0.1)
    assert schedule.level(0) == pytest.approx(high - 0.1)
    for _ in range(10):
        schedule.update(5.0, surviving=0.1)
    assert schedule.level(0) == 0.0


def test_the_adaptive_level_continues_from_its_state() -> None:
    whole, first, second = adaptive(), adaptive(), adaptive()
    losses = [5.0, 4.0, 4.5, 4.5, 4.6, 4.2, 4.9, 4.9, 4.9, 4.9, 4.9]
    for loss in losses:
        whole.update(loss, surviving=0.9)
    for loss in losses[:5]:
        first.update(loss, surviving=0.9)
    second.load_state_dict(first.state_dict())
    for loss in losses[5:]:
        second.update(loss, surviving=0.9)
    assert second.state_dict() == whole.state_dict()
    assert second.level(0) == whole.level(0) > 0
