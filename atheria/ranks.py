"""The processes that train one run together, and what they tell each other.

The universes of a batch are split over them. In backpropagation through time every gradient is complete
only at the end, so there is no computation to hide its exchange behind: one sum of all gradients at once
is as fast as torch's DistributedDataParallel, and simpler.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from atheria import launch
from atheria.config import UserError
from atheria.launch import Place

PATIENCE = timedelta(hours=1)
"""How long the others wait while the first evaluates, saves or exports; one that has died is seen at once."""

_LEFT = "left"

Value = TypeVar("Value")

_numbers = count()


class Ranks:
    """The processes of a run. Of one process, every method returns what it is given.

    All processes must call the same methods in the same order.

    Args:
        place: Which of them this process is.

    Attributes:
        place: The same.
        is_first: Whether this process is the one that logs, prints and saves.
    """

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or Place()
        self.is_first = self.place.is_first
        self._are_several = self.place.size > 1

    def share(self, universes: int) -> tuple[int, int]:
        """The part of a batch that is this process': its first universe, and how many.

        Args:
            universes: Of the batch; a multiple of the number of processes.
        """
        part = universes // self.place.size
        return self.place.rank * part, part

    def highest(self, number: int) -> int:
        """The highest of the processes' numbers."""
        if not self._are_several:
            return number
        highest = torch.tensor(int(number))
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest.item())

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means of values over the processes, by name."""
        if not self._are_several:
            return dict(values)
        total = torch.tensor([*values.values()], dtype=torch.float64)
        dist.all_reduce(total)
        return dict(zip(values, (total / self.place.size).tolist(), strict=True))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their means over the processes."""
        if not self._are_several:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.place.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, part: Tensor) -> Tensor:
        """The processes' parts of a batch, put together along the first axis."""
        if not self._are_several:
            return part
        parts = [
            torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.place.size)
        ]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def broadcast(self, value: Value) -> Value:
        """The first process' value, which can be pickled; tensors must be on the CPU."""
        if not self._are_several:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return value if self.is_first else box[0]

    def by_first(self, make: Callable[[], Value]) -> Value | None:
        """What `make` returns in the first process; None in the others, which do not call it.

        Raises:
            UserError: `make` has raised an error; the first process raises that itself.
        """
        if not self._are_several:
            return make()
        made, error = None, None
        if self.is_first:
            try:
                made = make()
            except Exception as raised:
                error = raised
        message = self.broadcast(str(error) if error else None)
        if error is not None:
            raise error
        if message is not None:
            raise UserError(message)
        return made

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process, in all; see `by_first` and `broadcast`."""
        made: Any = self.by_first(make)
        value: Value = self.broadcast(made)
        return value

    def together(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in each process.

        Raises:
            UserError: `make` has raised one in some process.
        """
        if not self._are_several:
            return make()
        made, message = None, None
        try:
            made = make()
        except UserError as error:
            message = str(error)
        messages: list[str | None] = [None] * self.place.size
        dist.all_gather_object(messages, message)
        for message in messages:
            if message is not None:
                raise UserError(message)
        value: Any = made
        return value  # type: ignore[no-any-return]


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes of the run, while it lasts; alone, nothing of torch.distributed is set up.

    Nobody leaves before the first process has: a launcher ends what is left when one process fails.

    Args:
        device: What they compute on: NCCL carries tensors of CUDA devices, Gloo all else.

    Raises:
        UserError: Nothing says where they meet.
    """
    place = launch.place()
    if place.size == 1:
        yield Ranks()
        return
    meeting = launch.meeting()
    store = PrefixStore(f"{meeting.attempt}/{next(_numbers)}", _store(meeting, place))
    is_cuda = device.startswith("cuda") and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if is_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    try:
        yield Ranks(place)
    finally:
        dist.destroy_process_group()  # first of all: whoever waits for this process is told
        if place.is_first:
            store.set(_LEFT, "")
        else:
            with suppress(RuntimeError):  # the first process is gone, and the store with it
                store.wait([_LEFT], PATIENCE)


@cache
def _store(meeting: launch.Meeting, place: Place) -> TCPStore:
    """The connection over which processes first find each other; it outlives a run, for the next one."""
    listens = place.is_first and not meeting.is_hosted
    return TCPStore(meeting.host, meeting.port, is_master=listens, wait_for_workers=False)
