"""What a process has loaded that others are forked from: no collection writes to the pages they share."""

import gc
from importlib import import_module

from atheria import collecting

gc.disable()
for module in ("atheria.sweeps.worker", "atheria.jobs.train"):
    import_module(module)
collecting.begin()
