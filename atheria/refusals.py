"""What the engine refuses, as messages for its user."""

from collections.abc import Iterator
from contextlib import contextmanager

from atheria.config import UserError


@contextmanager
def of_engine() -> Iterator[None]:
    """Within, what the engine refuses, or has no memory for, is the user's to mend.

    Raises:
        UserError: In place of the engine's own errors; what a field that is no longer finite raises stays.
    """
    try:
        yield
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(str(error)) from error
