"""The process that delivers the journal of a run: ``python -m atheria.courier FOLDER``, started by a run.

It reads the store's address from stdin, and delivers until that is closed: by its run, or by the end of the
process that logs the run, however that ends; what was logged until then still arrives.
"""

import signal
import sys
import threading
from pathlib import Path

from atheria.delivery import keep_delivering


def main() -> None:
    """Delivers until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, which shares our terminal and our job
    uri = sys.stdin.readline().rstrip("\n")
    closing = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        closing.set()

    threading.Thread(target=watch, daemon=True).start()
    keep_delivering(Path(sys.argv[1]), uri, None, closing)


if __name__ == "__main__":
    main()
