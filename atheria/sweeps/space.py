"""What a command line sweeps over: the keys, and the values of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from atheria.config import UserError

_FIXED = ("output", "sweep", "tracking", "trainer.resume", "hydra")
"""What a sweep has once for all its runs."""


@dataclass(frozen=True)
class Axis:
    """A key that is swept over.

    Attributes:
        key: The key or group, as the command line writes it.
        values: Its values as the command line writes them; those of an interval are its ends.
        low: Lowest value of an interval or a range of numbers.
        high: Highest value of it.
        step: Distance of the values of a range; None for an interval.
        is_log: Whether it is searched on a logarithmic scale.
    """

    key: str
    values: tuple[str, ...]
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    is_log: bool = False

    @property
    def is_interval(self) -> bool:
        """Whether it holds more than its `values`."""
        return self.low is not None and self.step is None

    def __str__(self) -> str:
        scale = ", logarithmic" if self.is_log else ""
        return f"{self.low} to {self.high}{scale}" if self.is_interval else ", ".join(self.values)


@dataclass(frozen=True)
class Space:
    """A command line, taken apart.

    Attributes:
        fixed: What all its runs share.
        axes: What they differ in.
        ours: What is told to the launcher and to the sweeper.
    """

    fixed: list[str]
    axes: list[Axis]
    ours: list[str]

    def overrides(self, varied: Mapping[str, str]) -> list[str]:
        """The settings of one run."""
        return [*self.fixed, *(f"{key}={value}" for key, value in varied.items())]

    def grid(self) -> list[dict[str, str]]:
        """Every combination of the values.

        Raises:
            UserError: One of them is an interval.
        """
        if intervals := [axis.key for axis in self.axes if axis.is_interval]:
            raise UserError(
                f"`{intervals[0]}` is swept over an interval, which needs a search: hydra/sweeper=optuna; or "
                "list its values"
            )
        keys = [axis.key for axis in self.axes]
        return [
            dict(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in self.axes))
        ]


def read(overrides: Sequence[str], params: Mapping[str, object] | None = None) -> Space:
    """Takes a command line apart.

    Args:
        overrides: The command line's.
        params: What the configuration sweeps over besides; the command line has the last word.

    Raises:
        UserError: It sweeps over what a sweep has once.
    """
    given = _parse(overrides)
    keys = {override.get_key_element().lstrip("+") for override in given}
    added = _parse([f"{key}={value}" for key, value in (params or {}).items() if key not in keys])
    ours = [override for override in given if _is_of(override, "hydra")]
    others = [override for override in [*added, *given] if override not in ours]
    for override in [*ours, *others]:
        if override.is_sweep_override() and any(_is_of(override, key) for key in _FIXED):
            raise UserError(f"`{override.key_or_group}` is the same for all runs of a sweep; give one value")
    return Space(
        fixed=[str(override.input_line) for override in others if not override.is_sweep_override()],
        axes=[_axis(override) for override in others if override.is_sweep_override()],
        ours=[str(override.input_line) for override in ours],
    )


def _parse(lines: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(lines))
    except HydraException as error:
        raise UserError(f"{error}".splitlines()[0]) from None


def _is_of(override: Override, key: str) -> bool:
    name = override.key_or_group.replace("/", ".")
    return name == key or name.startswith(f"{key}.")


def _axis(override: Override) -> Axis:
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if low >= high:
            raise UserError(f"`{key}`: an interval goes from less to more, got {low} to {high}")
        return Axis(key, (str(low), str(high)), low, high, is_log="log" in value.tags)
    if isinstance(value, Glob):
        raise UserError(f"`{key}`: glob is not understood here; list the values")
    values = tuple(override.sweep_string_iterator())
    if isinstance(value, RangeSweep) and len(values) > 1:
        numbers = [int(text) if isinstance(value.start, int) else float(text) for text in values]
        return Axis(key, values, min(numbers), max(numbers), value.step, is_log="log" in value.tags)
    return Axis(key, values)
