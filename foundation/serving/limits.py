"""What a request may be before anybody reads it: no larger than allowed, and whole within a time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.responses import JSONResponse

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

# A client that sends first and reads then must be let finish, or it sees a broken connection instead of the reason.
_DISCARD_BYTES = 64 << 20
_BODY_SECONDS = 30.0


class _TooLarge(Exception):
    pass


class _Gone(Exception):
    pass


class BodyLimit:
    """Passes a request on when its body is here, whole; else answers 413 (too large) or 408 (too slow)."""

    def __init__(self, app: App, body_bytes: int, seconds: float = _BODY_SECONDS) -> None:
        self.app, self.body_bytes, self.seconds = app, body_bytes, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._body(receive)
        except _TooLarge:
            refusal = f"the request is larger than {self.body_bytes:,} bytes: send fewer or shorter texts"
            await JSONResponse({"error": refusal}, 413, {"connection": "close"})(scope, receive, send)
        except TimeoutError:
            refusal = f"the request was not here within {self.seconds:g} seconds"
            await JSONResponse({"error": refusal}, 408, {"connection": "close"})(scope, receive, send)
        except _Gone:
            return
        else:
            await self.app(scope, _replay(body, receive), send)

    async def _body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size <= self.body_bytes:
                parts.append(part)
            else:
                parts.clear()
            is_last = not message.get("more_body", False)
            if size > self.body_bytes and (is_last or size > _DISCARD_BYTES):
                raise _TooLarge
            if is_last:
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then whatever comes (that the client has gone)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
