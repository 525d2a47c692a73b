"""How runs end: the signals that end them, the statuses they are left with, processes that are gone."""

import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
REQUEUED = "SCHEDULED"
"""MLflow's word for a run that will go on."""

_ENDS = {
    signal.SIGINT: KILLED,
    signal.SIGTERM: KILLED,
    signal.SIGHUP: KILLED,
    signal.SIGUSR2: REQUEUED,
}
"""Signals that end a run. A terminal or connection that is closed sends HUP, schedulers USR2 before they take
a job off its machine and queue it again."""

_PRUNED = "PRUNED"
_ENDINGS = (None, _PRUNED, KILLED, REQUEUED)
"""What a run can be told to end as, in the order in which one goes before another."""

_STDERR = 2
"""Written to directly in a handler, which may have interrupted Python in the middle of writing to it."""


class Stopped(KeyboardInterrupt):
    """A signal has told a run to end.

    Attributes:
        status: What it ends as.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Pruned(Stopped):
    """A search has found a run hopeless."""

    def __init__(self) -> None:
        super().__init__(KILLED)


def status_of(error: BaseException | None) -> str:
    """The status of a run that ended with an error, or with None."""
    if error is None:
        return FINISHED
    if isinstance(error, Stopped):
        return error.status
    return KILLED if isinstance(error, KeyboardInterrupt) else FAILED


class StopRequest:
    """Whether a signal has asked to end, and what the run then ends as.

    Args:
        is_preempted: Asked at SIGTERM: whether a scheduler sent it that will start the run again.
    """

    def __init__(self, is_preempted: Callable[[], bool] = lambda: False) -> None:
        self.status: str | None = None
        self.is_preempted = is_preempted

    def note(self, number: int) -> None:
        """Notes a signal. Schedulers may send several, of which one says that the run will go on."""
        if self.status != REQUEUED:
            will_go_on = number == signal.SIGTERM and self.is_preempted()
            self.status = REQUEUED if will_go_on else _ENDS[signal.Signals(number)]

    def prune(self) -> None:
        """Asks on behalf of a search that has found the run hopeless."""
        self.status = self.status or _PRUNED

    @property
    def number(self) -> int:
        """The same as a number, for processes that compare theirs: 0 for none, the highest counts."""
        return _ENDINGS.index(self.status)


def heed(number: int) -> None:
    """Raises Stopped where the number of a request says so; called where everything is saved."""
    status = _ENDINGS[number]
    if status is not None:
        raise Pruned if status == _PRUNED else Stopped(status)


_of_process = StopRequest()
"""What has asked this process to end; once something has, it is cleaning up and hears only Ctrl-C."""


def interrupt_on_signals(is_preempted: Callable[[], bool] = lambda: False) -> None:
    """Lets every signal that ends a run interrupt as Ctrl-C does: a command that is told to end cleans up.

    Args:
        is_preempted: See `StopRequest`.
    """
    global _of_process
    _of_process = request = StopRequest(is_preempted)

    def stop(number: int, frame: FrameType | None) -> None:
        _outlive_the_terminal(number)
        if request.status is None:
            request.note(number)
            heed(request.number)

    for number in _heard():
        if number != signal.SIGINT:
            signal.signal(number, stop)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)  # `atheria/__init__.py` has left at once so far


@contextmanager
def at_step_boundary(ending_after: str) -> Iterator[StopRequest]:
    """While it lasts, signals only set the request; SIGINT after another signal interrupts at once.

    Args:
        ending_after: The step that is waited for, as the user is told at the first signal.
    """
    request = StopRequest(_of_process.is_preempted)

    def note(number: int, frame: FrameType | None) -> None:
        _outlive_the_terminal(number)
        is_first = request.status is None
        if number == signal.SIGINT and not is_first:
            raise KeyboardInterrupt
        request.note(number)
        if is_first:
            os.write(_STDERR, f"\nending after {ending_after}; Ctrl-C ends at once\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread receives signals
        return
    before = {number: signal.signal(number, note) for number in _heard()}
    try:
        yield request
    finally:
        _of_process.status = request.status
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[signal.Signals]:
    """The signals that end a run, but HUP under nohup."""
    return [n for n in _ENDS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def _outlive_the_terminal(number: int) -> None:
    """What is said to a terminal that has hung up is said to nobody; writing to it would be an error."""
    if number != signal.SIGHUP:
        return
    nobody = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, _STDERR):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nobody, descriptor)
    os.close(nobody)


def this_process() -> str:
    """A mark of this process that no later one bears: ``host boot container pid start``."""
    return f"{socket.gethostname()} {_boot()} {_namespace()} {os.getpid()} {_start(os.getpid())}"


def host_of(mark: str) -> str:
    """The machine of a process."""
    return mark.partition(" ")[0]


def is_gone(mark: str) -> bool:
    """Whether a process, by its mark, is known to have ended; False where it cannot be known."""
    try:
        host, boot, namespace, pid, start = mark.split(" ")
    except ValueError:
        return False
    if host != socket.gethostname():
        return False
    if boot != _boot():
        return True
    return namespace == _namespace() and _start(int(pid)) != start


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else "-"


def _namespace() -> str:
    """The container: a process number means something only there."""
    path = Path("/proc/self/ns/pid")
    return str(path.stat().st_ino) if path.exists() else "-"


def _start(pid: int) -> str:
    """When a process started, in clock ticks since the boot; ``-`` where there is no such process."""
    try:
        known = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "-"
    after_name = known.rpartition(")")[2].split()
    return "-" if after_name[0] in "ZX" else after_name[19]
