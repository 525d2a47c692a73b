"""What all pages share: the simulation, the law that runs, the pictures of each view."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from atheria_core import Engine

from atheria import registry
from atheria.config import NoiseConfig, UserError, ViewConfig
from atheria.viewer.choices import STARTED_WITH, Choices
from atheria.viewer.commands import Command, Erase, Look, Noise, Paint, Play, Reset, Speed, Step
from atheria.viewer.pictures import Camera, Moment
from atheria.viewer.simulation import Simulation
from atheria.viewer.universe import Universe, disks, matter, open_universe

FAULTS = (UserError, ValueError, RuntimeError, OSError)
"""What a command can come to; the page shows it, and all goes on."""

_MOST_CAMERAS = 16
"""Views that are kept, each with a picture or two."""
MOST_CELLS = 1 << 24
"""Of a grid that a page may ask for."""


class Session:
    """One universe that pages look at and act on.

    Args:
        config: What the viewer was told.

    Attributes:
        simulation: What steps.
        number: Counts the changes of what `facts` says.

    Raises:
        UserError: The law cannot be had or loaded.
    """

    def __init__(self, config: ViewConfig) -> None:
        self._config = config
        self._choices = Choices(config)
        self._universe = open_universe(config, self._choices.path(STARTED_WITH), STARTED_WITH, config.noise)
        self._cameras: dict[Look, Camera] = {}
        self._random = np.random.default_rng()  # of brushes: nothing that is done by hand is repeated
        # One thread each: pictures of a view are made once, and one law is loaded at a time.
        self._darkroom = ThreadPoolExecutor(1, "atheria-pictures")
        self._loader = ThreadPoolExecutor(1, "atheria-laws")
        self._news: Callable[[], None] = lambda: None
        self.number = 0
        self.simulation = Simulation(self._universe.engine, lambda: self._news())
        self.simulation.set_speed(config.speed)
        self._plays = config.play

    @property
    def universe(self) -> Universe:
        """What runs."""
        return self._universe

    def tell(self, news: Callable[[], None]) -> None:
        """Has a function called, in any thread, when there is a new moment or something has changed."""
        self._news = news

    def greet(self) -> None:
        """A page has come: the first one sees the universe from its start."""
        if self._plays:
            self._plays = False
            self.simulation.play(True)

    def facts(self) -> dict[str, Any]:
        """What the page shows of the universe, beside the pictures."""
        return {"number": self.number, **self._universe.facts()}

    async def picture(self, moment: Moment, look: Look) -> bytes:
        """The picture of a moment."""
        look = look.model_copy(update={"component": look.component % self._universe.description.d_state})
        camera = self._cameras.pop(look, None) or Camera(look)
        self._cameras[look] = camera
        if len(self._cameras) > _MOST_CAMERAS:
            del self._cameras[next(iter(self._cameras))]
        return await asyncio.get_running_loop().run_in_executor(self._darkroom, camera.take, moment)

    async def laws(self) -> list[dict[str, str]]:
        """The laws to choose from.

        Raises:
            UserError: The store gives no answer.
        """
        return await asyncio.get_running_loop().run_in_executor(self._loader, self._choices.listed)

    async def choose(self, choice: str) -> None:
        """Goes on with another law, whose universe starts.

        Raises:
            UserError: It cannot be had or loaded; what ran goes on.
        """

        def load() -> Universe:
            now = self._universe
            return open_universe(
                self._config, self._choices.path(choice), choice, now.noise, now.beginning.grid
            )

        chosen = await asyncio.get_running_loop().run_in_executor(self._loader, load)
        await asyncio.wrap_future(self.simulation.adopt(chosen.engine))
        self._change(chosen)

    async def obey(self, command: Command) -> None:
        """Does what a page has commanded, but for what concerns that page alone.

        Raises:
            UserError: It cannot be done; nothing has changed.
        """
        match command:
            case Play():
                self.simulation.play(command.on)
            case Step():
                self.simulation.step(command.steps)
            case Speed():
                self.simulation.set_speed(command.steps_per_second)
            case Reset():
                await self._reset(command)
            case Noise():
                await self._set_noise(command)
            case Paint() | Erase():
                await self._brush(command)

    async def _reset(self, command: Reset) -> None:
        now = self._universe
        beginning = now.beginning.changed(command)
        height, width = beginning.grid
        if height * width > MOST_CELLS:
            raise UserError(f"`grid` must have at most {MOST_CELLS} cells here, got {height} x {width}")

        def start(engine: Engine) -> None:
            beginning.start(engine, now.description.d_state)

        await asyncio.wrap_future(self.simulation.call(start, restarts=True))
        self._change(replace(now, beginning=beginning))

    async def _set_noise(self, command: Noise) -> None:
        now = self._universe
        name = command.name if command.level else "none"
        if name in ("bit_flip", "mixed") and now.description.d_state < 2:
            raise UserError(f"noise {name} needs a law of at least 2 components, this one has 1")
        noise = NoiseConfig(name=name, level=command.level)
        await asyncio.wrap_future(self.simulation.call(lambda engine: engine.set_noise(name, noise.level)))
        self._change(replace(now, noise=noise))

    async def _brush(self, command: Paint | Erase) -> None:
        now = self._universe
        torus = now.info["boundary"] == "torus"
        cells = disks(command.points, command.radius, now.beginning.grid, torus)
        d_state = now.description.d_state
        if isinstance(command, Paint):
            amplitudes = matter(len(cells), d_state, command.norm, command.phase, self._random)
        else:
            amplitudes = np.zeros((len(cells), d_state), np.complex64)
        await asyncio.wrap_future(
            self.simulation.call(lambda engine: engine.add_particles(cells, amplitudes))
        )

    def _change(self, universe: Universe) -> None:
        self._universe = universe
        self.number += 1
        self._cameras.clear()
        self._news()

    def end(self) -> None:
        """Ends every thread."""
        self._news = lambda: None
        self.simulation.end()
        self._darkroom.shutdown(cancel_futures=True)
        self._loader.shutdown(cancel_futures=True)


def noises() -> list[str]:
    """The channels to choose from."""
    return ["none", *registry.names("atheria.noise")]
