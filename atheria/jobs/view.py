"""The work of ``python -m atheria.view``."""

import webbrowser

from atheria.config import ViewConfig, check_noise, chosen_initial_state
from atheria.fetch import check_names
from atheria.viewer.server import Server
from atheria.viewer.session import Session


def check(config: ViewConfig) -> None:
    """Raises UserError where the settings contradict each other."""
    check_names(config.run_id, config.law, config.best_of)
    check_noise(config.noise)
    chosen_initial_state(config.initial_state)


def run(config: ViewConfig) -> None:
    """Shows a law live until it is interrupted.

    Raises:
        UserError: The law cannot be had, does not suit the grid or the initial state, or the port is taken.
    """
    session = Session(config)
    try:
        server = Server(session, config.port)
        universe = session.facts()
        height, width = universe["grid"]
        print(
            f"law       {universe['law']}, d_state {universe['d_state']}\n"
            f"engine    {universe['engine']['computes']}; {height} x {width} cells\n"
            f"open      {server.address}\n"
            "stop      Ctrl-C",
            flush=True,
        )
        if config.open:
            webbrowser.open(server.address)
        server.run()
    except KeyboardInterrupt:
        pass  # it is how a viewer ends
    finally:
        session.end()
    print(f"\nstopped   after {session.simulation.steps_done} steps")
