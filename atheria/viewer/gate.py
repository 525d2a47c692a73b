"""Who gets in: whoever holds the token, from this server's own pages, under this machine's own names.

Other users of the machine cannot guess the token. Pages of other sites can reach a server on 127.0.0.1 from
the browser of the user who runs it: their Origin gives them away, or, where they have given a name of theirs
the address 127.0.0.1, the Host.
"""

import hmac
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost")

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Gate:
    """Lets requests through to an application, or answers them 403.

    Args:
        app: What is behind it.
        port: That it is reached at; names the cookie too, since those of all ports are one browser's.

    Attributes:
        token: That opens it, as ``?token=`` once and as a cookie from then on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._app = app
        self._hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"atheria-view-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        gives = scope["type"] == "http" and self._is_token(_query(scope).get("token", []))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = dict(_HEADERS)
                if gives:
                    added["Set-Cookie"] = f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                pairs = [(name.lower().encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *pairs]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        if not set(_headers(scope, "host")) <= self._hosts or len(_headers(scope, "host")) != 1:
            return "this server answers to 127.0.0.1 and localhost at its own port alone (Host)"
        origins = _headers(scope, "origin")
        if not set(origins) <= self._origins or (scope["type"] == "websocket" and not origins):
            return "only this server's own page may ask (Origin)"
        if not self._is_token([*_query(scope).get("token", []), *self._of_cookies(scope)]):
            return "the token is missing or wrong; open the address that python -m atheria.view has printed"
        return None

    def _is_token(self, given: Iterable[str]) -> bool:
        return any(hmac.compare_digest(token.encode(), self.token.encode()) for token in given)

    def _of_cookies(self, scope: Scope) -> list[str]:
        found = []
        for line in _headers(scope, "cookie"):
            try:
                cookies = SimpleCookie(line)
            except CookieError:
                continue
            if self._cookie in cookies:
                found.append(cookies[self._cookie].value)
        return found


def _headers(scope: Scope, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name.encode()]


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))


async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = PlainTextResponse(f"403: {why}\n", status_code=403, headers=_HEADERS)
    await response(scope, receive, send)  # of a WebSocket's handshake too
