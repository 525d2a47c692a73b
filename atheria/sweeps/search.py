"""Which points a sweep tries: all of a grid, or those that Optuna proposes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from atheria import endings
from atheria.config import GridConfig, OptunaConfig, TrainConfig, UserError
from atheria.sweeps.points import Outcome, Point, Trial
from atheria.sweeps.space import Space

MakePoint = Callable[[dict[str, str], Trial | None], Point]
"""The point of the settings that are its own."""


class Grid:
    """Every combination of the values.

    Args:
        space: The values.
        make_point: See `MakePoint`.
    """

    def __init__(self, space: Space, make_point: MakePoint) -> None:
        self._left = [make_point(varied, None) for varied in space.grid()]

    def __len__(self) -> int:
        return len(self._left)

    def propose(self, free: int) -> list[Point]:
        """All at once, whatever is free: who runs them knows best how many can run."""
        proposed, self._left = self._left, []
        return proposed

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Nothing depends on it."""


class OptunaSearch:
    """Trials that Optuna chooses by those before, in a storage that outlives the command.

    Trials that an earlier command has left unfinished come first.

    Args:
        config: The search's settings.
        base: Settings of one of its runs.
        name: The search's name.
        folder: The sweep's folder.
        space: The values.
        make_point: See `MakePoint`.

    Raises:
        UserError: Its storage holds another search of that name.
    """

    def __init__(
        self,
        config: OptunaConfig,
        base: TrainConfig,
        name: str,
        folder: Path,
        space: Space,
        make_point: MakePoint,
    ) -> None:
        from atheria.sweeps import trials

        storage = trials.without_password(config.storage or str(folder / trials.FILE))
        plan = base.trainer
        self._template = Trial(
            number=0,
            search=name,
            storage=storage,
            metric=base.sweep.metric,
            pruner=config.pruner,
            startup=config.startup,
            first=min(plan.eval_every, plan.episodes),
            last=plan.episodes,
        )
        self._most = config.trials
        self._space = space
        self._make_point = make_point
        self._study = trials.open_study(
            self._template, trials.make_sampler(config, name, storage), base.sweep.direction
        )
        self._unfinished = trials.unfinished(self._study, space.axes)

    def __len__(self) -> int:
        return max(0, self._most - len(self._study.trials)) + len(self._unfinished)

    def propose(self, free: int) -> list[Point]:
        """As many as can run."""
        from atheria.sweeps import trials

        proposed = []
        for _ in range(free):
            if self._unfinished:
                number, varied = self._unfinished.pop(0)
            elif len(self._study.trials) < self._most:
                number, varied = trials.ask(self._study, self._space.axes)
            else:
                break
            try:
                proposed.append(self._make_point(varied, replace(self._template, number=number)))
            except UserError:
                trials.tell_failed(self._study, number)
                raise
        return proposed

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Gives the trial its value; one that was interrupted stays open for the next command."""
        from atheria.sweeps import trials

        assert point.trial is not None
        if outcome.is_pruned:
            trials.tell_pruned(self._study, point.trial.number)
        elif outcome.status == endings.FAILED:
            trials.tell_failed(self._study, point.trial.number)
        elif outcome.status == endings.FINISHED:
            if point.trial.metric not in outcome.metrics:
                raise UserError(
                    f"`sweep.metric`: run {outcome.run_id} has no '{point.trial.metric}'; it has "
                    + ", ".join(sorted(outcome.metrics))
                )
            trials.tell(self._study, point.trial.number, outcome.metrics[point.trial.metric])


def make_search(
    config: GridConfig | OptunaConfig,
    base: TrainConfig,
    name: str,
    folder: Path,
    space: Space,
    make_point: MakePoint,
) -> "Grid | OptunaSearch":
    """The search of a configuration; see `Grid` and `OptunaSearch`."""
    if isinstance(config, GridConfig):
        return Grid(space, make_point)
    return OptunaSearch(config, base, name, folder, space, make_point)
