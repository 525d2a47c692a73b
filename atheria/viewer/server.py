"""The viewer's server: the page, and a WebSocket for each page that is open."""

import asyncio
import mimetypes
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from atheria.config import UserError
from atheria.viewer import palettes
from atheria.viewer.client import Client
from atheria.viewer.commands import LONGEST_MESSAGE
from atheria.viewer.gate import Gate
from atheria.viewer.pictures import finite
from atheria.viewer.session import Session, noises

MOST_CLIENTS = 64
TRY_AGAIN_LATER = 1013
PATIENCE = 10.0
"""Seconds that a page may take to read what it is sent, and to answer a ping."""

_PAGE = Path(__file__).with_name("page")
_SENT_AHEAD = 1 << 18
"""Bytes that the system keeps for a page that does not read."""
_END_SECONDS = 3


def application(session: Session, patience: float = PATIENCE) -> FastAPI:
    """The server's application, without its gate; a session's pages are served while it lives."""
    clients: set[Client] = set()
    hello = {"palettes": palettes.encoded(), "noises": noises(), "clients": MOST_CLIENTS}

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            for client in clients:
                client.tell()

        def tell_soon() -> None:
            loop.call_soon_threadsafe(tell)

        session.tell(tell_soon)
        try:
            yield
        finally:
            session.end()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        if len(clients) >= MOST_CLIENTS:
            await websocket.close(TRY_AGAIN_LATER, f"{MOST_CLIENTS} pages are open; close one")
            return
        client = Client(websocket, session, patience)
        clients.add(client)
        session.greet()
        try:
            with suppress(WebSocketDisconnect, asyncio.TimeoutError):
                await client.run({**hello, "points": [finite(point) for point in session.simulation.points]})
        finally:
            clients.discard(client)

    mimetypes.add_type("text/javascript", ".js")  # which some systems' tables have otherwise
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


class Server:
    """A server on 127.0.0.1.

    Args:
        session: What it shows; ended with it.
        port: Where; 0 for a free one.
        patience: See `PATIENCE`.

    Attributes:
        address: What to open, with the token.

    Raises:
        UserError: The port is taken.
    """

    def __init__(self, session: Session, port: int, patience: float = PATIENCE) -> None:
        self._socket = _listening(port, patience)
        number = self._socket.getsockname()[1]
        gate = Gate(application(session, patience), number)
        self.address = f"http://127.0.0.1:{number}/?token={gate.token}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                gate,
                log_level="error",
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=LONGEST_MESSAGE,
                ws_ping_interval=patience,
                ws_ping_timeout=patience,
                ws_per_message_deflate=False,  # between two programs of one machine
                timeout_graceful_shutdown=_END_SECONDS,
            )
        )

    def run(self) -> None:
        """Serves until it is interrupted or stopped."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ends it, from another thread."""
        self._server.should_exit = True


def _listening(port: int, patience: float) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit these: one that is not read costs little, and the system ends it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_AHEAD)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience))
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # whoever is quick waits until it is served, and is not refused
    except OSError as error:
        listener.close()
        raise UserError(
            f"`port` {port} of 127.0.0.1 cannot be had ({error.strerror}); choose another, or port=0 for a "
            "free one"
        ) from None
    return listener
