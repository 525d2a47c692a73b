"""torch's optimizers without their wrappers for torch.compile, which import it: seconds of every start."""

import inspect
from typing import TypeVar, cast

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=type[Optimizer])

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def eager(optimizer: Kind) -> Kind:
    """A subclass of an optimizer, to be used outside compiled functions alone.

    Args:
        optimizer: A class of `torch.optim`.

    Returns:
        The same, as it steps and as it is saved.
    """
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in _WRAPPED}
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    namespace = {"__doc__": optimizer.__doc__, "step": step, **methods}
    return cast(Kind, type(optimizer.__name__, (optimizer,), namespace))
