"""Steps on a CUDA device, recorded as a CUDA graph: one launch in place of hundreds."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Step = Callable[[], None]

WARM_UP = 5
"""Steps before the recorded one: in them TorchScript profiles and compiles, and libraries allocate."""

_alone = threading.Lock()
"""Who records or sets how the whole process computes: one thread at a time."""


def resolved(device: str) -> str:
    """``cuda:N`` for ``cuda``, which is another device wherever another one is current.

    Any other name is left as it is, for the engine to refuse.
    """
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return device


def recorder(device: str) -> Callable[[Step], tuple[Step, str]]:
    """What records steps on a device.

    Args:
        device: ``cuda:N``.

    Returns:
        A function that takes a step, runs it, and returns what replays it and how that is done. A step that
        cannot be recorded, as it waits for the device, is replayed by running it, and the text says why.
    """

    def record(step: Step) -> tuple[Step, str]:
        place = torch.device(device)
        with computing_on(device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    step()
                fault = _fault_of(step)
            torch.cuda.current_stream().wait_stream(aside)
            if fault is None:
                graph = torch.cuda.CUDAGraph()
                fault = _fault_of_capture(step, graph, aside)
        if fault is None:

            def replay() -> None:
                with torch.cuda.device(place):
                    graph.replay()

            return replay, "steps are replayed as a CUDA graph"

        def run() -> None:
            with computing_on(device):
                step()

        return run, f"kernels are launched one by one, as its step cannot be recorded: {_last_error(fault)}"

    return record


def _fault_of(step: Step) -> RuntimeError | None:
    """What a step raises that waits for the device: a capture that fails would leave its traces in torch."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return error
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return None


def _fault_of_capture(
    step: Step, graph: torch.cuda.CUDAGraph, aside: torch.cuda.Stream
) -> RuntimeError | None:
    # A capture that fails leaves its stream as the current one. And what torch allocates for all graphs must
    # be no tensor of inference mode, in which the engine calls this.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.inference_mode(False):
        fault = None
        try:
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                try:
                    step()
                except RuntimeError as error:
                    fault = error
                    raise
        except RuntimeError as error:
            return fault or error
    return None


def _last_error(fault: RuntimeError) -> str:
    """What TorchScript says at last, below the traces of its interpreter."""
    said = re.findall(r"^(?:\w*Error: )?(.*\S)", str(fault), re.MULTILINE)
    return said[-1] if said else repr(fault)


@contextmanager
def computing_on(device: str) -> Iterator[None]:
    """The device, with convolutions as on a CPU: the same each time, and not rounded to TensorFloat-32."""
    cudnn = torch.backends.cudnn
    convolutions = cudnn.conv  # type: ignore[attr-defined]
    with _alone:
        before = convolutions.fp32_precision, cudnn.deterministic, cudnn.benchmark
        convolutions.fp32_precision, cudnn.deterministic, cudnn.benchmark = "ieee", True, False
        try:
            with torch.cuda.device(torch.device(device)):
                yield
        finally:
            convolutions.fp32_precision, cudnn.deterministic, cudnn.benchmark = before
