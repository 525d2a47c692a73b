"""What a page may tell the server: one JSON object a message, checked before anything happens."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from atheria.config import Grid, Seed

LONGEST_MESSAGE = 1 << 14
"""Bytes."""
MOST_POINTS = 512
"""Of one stroke of the brush."""
MOST_CREDIT = 4
"""Frames that a page may ask for ahead."""

_Coordinate = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Points = Annotated[list[tuple[_Coordinate, _Coordinate]], Field(min_length=1, max_length=MOST_POINTS)]


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Frames(_Command):
    """The page has drawn, and wants that many more frames."""

    do: Literal["frames"]
    count: Annotated[int, Field(ge=1, le=MOST_CREDIT)] = 1


class Look(_Command):
    """What the page shows."""

    do: Literal["look"]
    view: Literal["density", "phase", "component", "change"]
    component: Annotated[int, Field(ge=0, lt=128)] = 0
    part: Literal["re", "im"] = "re"


class Play(_Command):
    """Whether the universe steps by itself."""

    do: Literal["play"]
    on: bool


class Step(_Command):
    """So many steps, and no more."""

    do: Literal["step"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 1


class Speed(_Command):
    """Steps a second; null for as many as the engine can."""

    do: Literal["speed"]
    steps_per_second: Annotated[float, Field(ge=0.1, le=1e6)] | None


class Reset(_Command):
    """The universe starts anew; what is null stays as it was."""

    do: Literal["reset"]
    kind: Literal["soup", "random", "particles", "gaussian", "zeros"] | None = None
    seed: Seed | None = None
    grid: Grid | None = None


class Paint(_Command):
    """Matter into the cells of a disk around each point, given as (x, y).

    Attributes:
        radius: Of the disk, in cells; 0 for a cell alone.
        norm: ||psi(x)|| of each cell that is painted.
        phase: Of all components, in radians; null for random amplitudes.
    """

    do: Literal["paint"]
    points: _Points
    radius: Annotated[int, Field(ge=0, le=64)]
    norm: Annotated[float, Field(gt=0, le=100)] = 1.0
    phase: Annotated[float, Field(ge=-10, le=10)] | None = None


class Erase(_Command):
    """Vacuum into the cells of a disk around each point."""

    do: Literal["erase"]
    points: _Points
    radius: Annotated[int, Field(ge=0, le=64)]


class Noise(_Command):
    """A noise channel after every step; ``none`` ends it."""

    do: Literal["noise"]
    name: Annotated[str, Field(max_length=64)]
    level: Annotated[float, Field(ge=0, le=1)]


class Law(_Command):
    """Another law, by the name that the list of laws gives it."""

    do: Literal["law"]
    choice: Annotated[str, Field(min_length=1, max_length=512)]


class Laws(_Command):
    """The list of laws, read anew."""

    do: Literal["laws"]


Command = Frames | Look | Play | Step | Speed | Reset | Paint | Erase | Noise | Law | Laws
_READER: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="do")])


class MalformedError(ValueError):
    """A message is no command; says why."""


def read(message: str) -> Command:
    """A message as a command.

    Raises:
        MalformedError: It is none.
    """
    try:
        return _READER.validate_json(message)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise MalformedError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None
