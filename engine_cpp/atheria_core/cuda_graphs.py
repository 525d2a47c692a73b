"""Steps on a CUDA device, recorded as a CUDA graph: one launch in place of hundreds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Step = Callable[[], None]

WARM_UP = 5
"""Steps before the recorded one: in them TorchScript profiles and compiles, and libraries allocate."""


def recorder(device: str) -> Callable[[Step], tuple[Step, str]]:
    """What records steps on a device.

    Args:
        device: ``cuda`` or ``cuda:N``.

    Returns:
        A function that takes a step, runs it, and returns what replays it and how that is done. A step that
        cannot be recorded, as it waits for the device, is replayed by running it, and the text says why.
    """

    def record(step: Step) -> tuple[Step, str]:
        place = torch.device(device)
        with _computing_on(place):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    step()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            try:
                # A capture that fails leaves its stream as the current one.
                with (
                    torch.cuda.stream(torch.cuda.current_stream()),
                    torch.cuda.graph(graph, capture_error_mode="thread_local"),
                ):
                    step()
            except RuntimeError as error:
                reason = str(error.__context__ or error).splitlines()[0]
            else:
                return _on(place, graph.replay), "steps are replayed as a CUDA graph"

        def run() -> None:
            with _computing_on(place):
                step()

        return run, f"kernels are launched one by one, as its step cannot be recorded: {reason}"

    return record


def _on(place: torch.device, replay: Step) -> Step:
    def run() -> None:
        with torch.cuda.device(place):
            replay()

    return run


@contextmanager
def _computing_on(place: torch.device) -> Iterator[None]:
    """The device, with convolutions in float32 as on a CPU: by default they round to TensorFloat-32."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with torch.cuda.device(place):
            yield
    finally:
        convolutions.fp32_precision = before
