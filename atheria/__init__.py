"""Atheria trains laws for cellular universes, tracks every run, rolls the winners out natively.

The commands are the modules ``atheria.train``, ``atheria.export`` and ``atheria.rollout``; in a
notebook, call the functions of the same names in them. Importing this package imports nothing heavy.
"""

__all__: list[str] = []
