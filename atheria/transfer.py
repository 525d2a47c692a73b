"""Transfer: a law starts with the weights of another run or checkpoint."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from atheria import checkpoint
from atheria.config import UserError
from atheria.tracking import find_run

_RUN = "run:"


def initialise(
    law: nn.Module, model: Mapping[str, Any], source: str, strict: bool, tracking_uri: str | None
) -> str:
    """Gives a law the weights that `source` names.

    Args:
        law: The law; its weights are changed.
        model: Its configuration.
        source: ``run:RUN_ID`` for the best checkpoint of a run, or the path of a checkpoint.
        strict: Whether all weights must fit; else those of equal name and shape are taken.
        tracking_uri: Store of the run.

    Returns:
        What was taken, for people.

    Raises:
        UserError: There is no such checkpoint, it does not fit, or nothing in it matches.
    """
    state = _read(source, tracking_uri)
    if strict:
        checkpoint.check_law(state, model, source)
        checkpoint.load_weights(law, state, source)
        return f"all weights of {source}"
    own = law.state_dict()
    weights = state["model_state_dict"]
    matching = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    if not matching:
        raise UserError(
            f"`trainer.init_from`: nothing in '{source}' matches model={model['name']} by name and shape"
        )
    law.load_state_dict(matching, strict=False)
    return f"{len(matching)} of {len(own)} tensors from {source}, which has {len(weights)}"


def _read(source: str, tracking_uri: str | None) -> dict[str, Any]:
    if not source.startswith(_RUN):
        return checkpoint.load(Path(source))
    run = find_run(source.removeprefix(_RUN), tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        return checkpoint.load(run.download(checkpoint.BEST, Path(folder)))
