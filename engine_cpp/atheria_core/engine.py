"""The engine as Python sees it: files are checked here, universes run in C++."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

from atheria import proven
from atheria.artifact import loading_arguments, physics_of, read_description
from atheria.config import InitialStateConfig

from ._core import Engine as _Engine
from ._core import Snapshot

__all__ = ["Engine", "Snapshot"]


class Engine(_Engine):
    """Rolls out a law natively.

    Args:
        d_state: Components of a cell; None takes the artifact's.
        device: ``cpu``, or ``cuda`` or ``cuda:N``: grids alone, by libtorch, each step a CUDA graph.
        threads: That compute, for as long as the engine does; 0 takes libtorch's number.
        precision: ``fp32``, or ``bf16`` for the convolutions of a compiled law, on a CPU that gains from it.
        backend: ``fastest``: compiled where it can be; or ``compiled`` or ``torchscript``, and no other.
    """

    def __init__(
        self,
        d_state: int | None = None,
        device: str = "cpu",
        threads: int = 0,
        precision: str = "fp32",
        backend: str = "fastest",
    ) -> None:
        recorder = None
        if isinstance(device, str) and device.startswith("cuda"):
            from . import cuda_graphs

            device = cuda_graphs.resolved(device)
            recorder = cuda_graphs.recorder(device)
        super().__init__(d_state, device, threads, precision, backend, recorder)
        self._d_state = d_state

    @classmethod
    def from_run(cls, run_id: str, tracking_uri: str | None = None, **engine_args: Any) -> "Engine":
        """An engine with the law that a run exported; see `atheria.engine.from_run`."""
        from atheria.fetch import law_of_run

        engine = cls(**engine_args)
        engine.load_model(law_of_run(run_id, tracking_uri))
        return engine

    def load_model(self, path: str | os.PathLike[str], physics: Mapping[str, Any] | None = None) -> None:
        """Loads a law; with no state set, starts the universe that the artifact describes.

        A field that the engine already has is where the universe starts anew under this law, at step 0. One
        that does not suit it, as of another `d_state`, is dropped with a warning.

        A file that was neither exported here nor verified by its run's digest is first opened in a child
        process, once: libtorch's reader can crash on a damaged one.

        Args:
            path: An artifact of Atheria, or a plain TorchScript file of a law.
            physics: Replaces values of the file's: gamma, epsilon, normalise, fire_rate, boundary,
                harmonic.

        Raises:
            ValueError: The file is missing, damaged, no law, or does not suit `d_state`.
        """
        description = read_description(path)
        arguments = loading_arguments(description, physics_of(description, physics or {}))
        proven.check(path, self._d_state, arguments)
        had_state = self.has_state
        self._load_model(os.fspath(path), **arguments)
        is_dropped = had_state and not self.has_state
        if description is not None and not self.has_state and description.initial_state.kind != "file":
            height, width = description.training_grid
            self.start(description.initial_state, description.seed, (height, width))
        if is_dropped:
            now = (
                "the universe that the artifact describes has begun"
                if self.has_state
                else "there is none now"
            )
            warnings.warn(
                f"the field that the engine had does not suit '{os.fspath(path)}' (`d_state`, `stride`, or a "
                f"law that cannot run unbounded), and is dropped; {now}",
                stacklevel=2,
            )

    def start(
        self,
        initial: InitialStateConfig,
        seed: int,
        grid: tuple[int, int] | None,
        universes: int = 1,
        extent: tuple[int, int] | None = None,
    ) -> None:
        """Resets to an initial state as the configuration writes it, unbounded where there is no grid.

        ``file`` goes through set_state or set_cells. `extent` is as for `reset`.
        """
        self.reset(
            initial.kind,
            seed,
            grid,
            universes,
            density=initial.density,
            count=initial.count,
            width=initial.width,
            extent=extent,
        )

    def info(self) -> dict[str, Any]:
        """What runs, and how.

        Returns:
            backend (compiled or torchscript) and why; device, precision, threads; d_state, stride (of which
            grids are multiples), has_memory; local, and receptive_radius in cells, None where the law is not;
            vacuum_stable, whether vacuum stays vacuum; the physics: gamma, epsilon, fire_rate, harmonic,
            normalise, boundary; noise and noise_level; universe (grid, unbounded, or None), and
            evaluated_cells, in which the last step evaluated the law, or else the next one will.
        """
        return self._info()
