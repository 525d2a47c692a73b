"""A child process that opens TorchScript first: ``python -m atheria.probe SOCKET IDLE LONGEST``.

libtorch's reader trusts what it reads: a file that was damaged, or made to, can end the process that opens
it. One child is kept warm for many files, since importing torch takes it longer than all the rest. A child
protects from a crash, not from malice: what a file runs, it runs with the user's rights.
"""

import atexit
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

LONGEST = 120
"""Seconds that a file may take to open."""
IDLE = 60
"""Seconds without a file after which a child ends by itself."""
STACK = 2 << 20
"""Bytes of a child's stack, a quarter of the usual: what fits in there fits wherever the engine is called."""


class CrashError(Exception):
    """The child died of a file; says how."""


class Probe:
    """Opens files in a child, which is started for the first one and again after a crash.

    Args:
        idle: See IDLE.
        longest: See LONGEST.

    Attributes:
        crashes: How many children have died of a file.
    """

    def __init__(self, idle: int = IDLE, longest: int = LONGEST) -> None:
        self.crashes = 0
        self._limits = [str(idle), str(longest)]
        self._lock = threading.Lock()
        self._child: _Child | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def open(self, path: str, d_state: int | None, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
        """Loads a file as an engine does.

        Args:
            path: An absolute path.
            d_state: The engine's own.
            arguments: Of the extension's ``Engine._load_model``.

        Returns:
            None where it loads, else the kind of the error (``ValueError``, ...) and its message.

        Raises:
            CrashError: The child died.
            RuntimeError: No child can be started.
        """
        request = json.dumps({"path": path, "d_state": d_state, "arguments": dict(arguments)})
        with self._lock:
            answer = self._ask(request)
            if answer is None:  # it had been idle for too long just when it was asked
                answer = self._ask(request)
        if answer is None:
            raise RuntimeError("the process that opens files first ended twice without a word")
        found = json.loads(answer)
        return None if found is None else (str(found[0]), str(found[1]))

    def close(self) -> None:
        """Ends the child."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _ask(self, request: str) -> str | None:
        """The child's answer; None where it has ended by itself before it was asked."""
        if self._child is None:
            self._child = _Child(self._limits)
        child = self._child
        try:
            answer = child.ask(request)
        except BaseException:  # also Ctrl-C: an answer that comes later would be taken for the next file's
            self.close()
            raise
        if answer:
            return answer
        self._child = None
        code = child.wait()
        child.abandon()
        if code == 0:
            return None
        self.crashes += 1
        raise CrashError(_how(code))

    def _forget(self) -> None:
        """In a fork, the child is the other process' alone."""
        if self._child is not None:
            self._child.abandon()
        self._child = None
        self._lock = threading.Lock()


class _Child:
    """The process and the line to it."""

    def __init__(self, limits: list[str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  kept open
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno()), *limits],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is not for it
                )
            except OSError as error:
                raise RuntimeError(f"the process that opens files first cannot start: {error}") from None
        self._answers = self._socket.makefile("r", encoding="utf-8")
        if not self._answers.readline():
            code = self.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"the process that opens files first cannot start ({_how(code)}): {last}")

    def ask(self, request: str) -> str:
        """A line of JSON for a line of JSON; empty where the process has ended."""
        try:
            self._socket.sendall(request.encode() + b"\n")
            return self._answers.readline()
        except ConnectionError:
            return ""

    def wait(self) -> int:
        """Waits for the end of the process; minus the signal it died of, or its status."""
        return self._process.wait()

    def end(self) -> None:
        """Ends it now, whatever it does."""
        self._process.kill()
        self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Lets go of the line."""
        for end in (self._answers, self._socket, self._errors):
            end.close()


def _how(code: int) -> str:
    if code == -signal.SIGALRM:
        return "it took too long"
    if code < 0:
        return f"it died of {signal.Signals(-code).name}"
    return f"it ended with status {code}"


def main() -> None:
    """Opens what it is told to until the line is closed."""
    descriptor, idle, longest = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is no news here
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it may be inherited as ignored
    threading.stack_size(STACK)
    line = socket.socket(fileno=descriptor)
    line.settimeout(idle)
    worker = threading.Thread(target=_serve, args=(line, longest))
    worker.start()
    worker.join()
    os._exit(1)  # what ended it there is on stderr


def _serve(line: socket.socket, longest: int) -> None:
    import torch  # noqa: F401  the extension links to the libraries that torch loads
    from atheria_core._core import Engine

    def load(path: str, d_state: int | None, arguments: dict[str, Any]) -> list[str] | None:
        try:
            Engine(d_state, threads=1)._load_model(path, **arguments)
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            return [type(error).__name__, str(error)]
        return None

    line.sendall(b"ready\n")
    for request in _lines(line):
        signal.alarm(longest)  # ends this process also in the midst of C++, and if nobody waits any more
        found = load(**json.loads(request))
        signal.alarm(0)
        line.sendall(json.dumps(found).encode() + b"\n")
    os._exit(0)  # nothing to tidy up


def _lines(line: socket.socket) -> Iterator[str]:
    """Lines that come, until none came for some time or the other end is closed."""
    waiting = b""
    while True:
        try:
            received = line.recv(1 << 16)
        except (TimeoutError, ConnectionError):
            return
        if not received:
            return
        *whole, waiting = (waiting + received).split(b"\n")
        yield from (text.decode() for text in whole)


if __name__ == "__main__":
    main()
