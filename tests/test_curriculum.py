import pytest

from atheria.config import CurriculumConfig
from atheria.curriculum import Curriculum


def test_curricula() -> None:
    linear = Curriculum(CurriculumConfig("linear", 100, 0.001), 0.05, episodes=7)
    assert [linear.level(e) for e in (0, 1, 50, 100, 500)] == pytest.approx([0, 0, 0.025, 0.05, 0.05])
    cosine = Curriculum(CurriculumConfig("cosine"), 0.05, episodes=100)
    assert [cosine.level(e) for e in (0, 50, 100)] == pytest.approx([0, 0.025, 0.05])
    assert Curriculum(CurriculumConfig("constant"), 0.05, episodes=100).level(0) == 0.05
