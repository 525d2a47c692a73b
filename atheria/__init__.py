"""Atheria trains laws for cellular universes, tracks every run, rolls the winners out natively.

The commands are the modules ``atheria.train``, ``atheria.export`` and ``atheria.rollout``; in a
notebook, call the functions of the same names in them. Importing this package imports nothing heavy.
"""

import gc
import os
import signal
import sys
from types import FrameType

__all__: list[str] = []


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends a command that is still importing as it would end later on; it has begun nothing yet."""
    os.write(2, b"interrupted\n")
    os._exit(130)


# Python calls a command so while it looks for its module, of which this package is the first part. What comes
# next, the imports of the command, takes longest; then `atheria.endings` lets Ctrl-C interrupt as usual.
if sys.argv[:1] == ["-m"]:
    gc.disable()  # until `atheria.collecting` begins: nothing of what is imported is garbage
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
