"""One page: what it commands is done in turn, what it shows is sent when it has asked for it.

A page that has drawn a frame asks for the next one: there are never more frames on the way than it has asked
for, and what it has not seen in time it never gets.
"""

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atheria.viewer.commands import MOST_CREDIT, Frames, Law, Laws, Look, MalformedError, read
from atheria.viewer.session import FAULTS, Session

MALFORMED, NO_TEXT = 1008, 1003
_REASON_BYTES = 120
_MOST_FAULTS = 8
_TELL_SECONDS = 1.0


class Client:
    """A connected page.

    Args:
        websocket: Accepted.
        session: What it looks at.
        patience: Seconds that a message may take to be sent.
    """

    def __init__(self, websocket: WebSocket, session: Session, patience: float) -> None:
        self._websocket = websocket
        self._session = session
        self._patience = patience
        self._news = asyncio.Event()
        self._look = Look(do="look", view="density")
        self._credit = 0
        self._seen: tuple[int, Look] | None = None
        self._faults: deque[str] = deque(maxlen=_MOST_FAULTS)
        self._laws: list[dict[str, str]] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._sent = 0

    def tell(self) -> None:
        """There is news."""
        self._news.set()

    async def run(self, hello: dict[str, Any]) -> None:
        """Serves the page until it goes, breaks the rules or stops reading."""
        await self._send({**hello, "type": "hello"})
        work = {asyncio.create_task(self._listen()), asyncio.create_task(self._show())}
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            with suppress(WebSocketDisconnect, TimeoutError, asyncio.TimeoutError):
                for task in done:
                    task.result()
        finally:
            if self._loading is not None:
                work.add(self._loading)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._close(NO_TEXT, "commands are text")
                return
            try:
                await self._obey(text)
            except MalformedError as error:
                await self._close(MALFORMED, str(error))
                return
            self._news.set()

    async def _obey(self, text: str) -> None:
        command = read(text)
        match command:
            case Frames():
                self._credit = min(MOST_CREDIT, self._credit + command.count)
            case Look():
                self._look = command
            case Law() | Laws():
                if self._loading is not None and not self._loading.done():
                    self._faults.append("a law is being loaded; wait for it")
                    return
                self._loading = asyncio.create_task(self._load(command))
            case _:
                try:
                    await self._session.obey(command)
                except FAULTS as error:
                    self._faults.append(str(error))

    async def _load(self, command: Law | Laws) -> None:
        try:
            if isinstance(command, Law):
                await self._session.choose(command.choice)
            self._laws = await self._session.laws()
        except FAULTS as error:
            self._faults.append(str(error))
        self._news.set()

    async def _show(self) -> None:
        """Sends what is new: texts first, then frames as far as the page has asked for them."""
        simulation = self._session.simulation
        status = facts = -1
        told = (time.monotonic(), 0)
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _TELL_SECONDS)
            self._news.clear()
            if self._session.number != facts:
                facts = self._session.number
                await self._send({"type": "universe", **self._session.facts()})
            if simulation.status.number != status:
                status = simulation.status.number
                await self._send({"type": "status", **simulation.status._asdict()})
            while self._faults:
                await self._send({"type": "fault", "text": self._faults.popleft()})
            if self._laws is not None:
                laws, self._laws = self._laws, None
                await self._send({"type": "laws", "laws": laws})
            since, before = told
            if (now := time.monotonic()) - since >= _TELL_SECONDS:
                told = now, self._sent
                await self._send({"type": "rates", "sent": (self._sent - before) / (now - since)})
            if self._credit:
                await self._send_frame()

    async def _send_frame(self) -> None:
        simulation, look = self._session.simulation, self._look
        simulation.want()
        moment = simulation.moment
        if moment is None or (moment.number, look) == self._seen:
            return
        self._seen = moment.number, look
        self._credit -= 1
        picture = await self._session.picture(moment, look)
        await asyncio.wait_for(self._websocket.send_bytes(picture), self._patience)
        self._sent += 1
        self._news.set()  # a newer moment may have come meanwhile

    async def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message, separators=(",", ":"))
        await asyncio.wait_for(self._websocket.send_text(text), self._patience)

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state != WebSocketState.DISCONNECTED:
            short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._websocket.close(code, short), self._patience)
