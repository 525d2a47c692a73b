"""The process that delivers the journal of a run, which starts it: ``python -m atheria.courier FOLDER PID``.

It delivers until its stdin is closed: by its run, or by the end of the process that logs the run, however
that ends; what was logged until then still arrives.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from atheria import collecting
from atheria.delivery import STORE, keep_delivering


def main() -> None:
    """Delivers until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, which shares our terminal and our job
    collecting.begin()
    folder, run = sys.argv[1:]
    closing = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        if os.getppid() != int(run):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody listens any more
        closing.set()

    threading.Thread(target=watch, daemon=True).start()
    keep_delivering(Path(folder), os.environ[STORE], None, closing, first_pause=0.0)


if __name__ == "__main__":
    main()
