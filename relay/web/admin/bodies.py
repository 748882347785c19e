"""A limit for bodies: what is larger is refused before it is kept."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.web.admin.errors import body
from relay.web.last_response import LastResponse

MOST_BYTES = 16 * 1024 * 1024
"""A payload in base64 with room around it."""


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `MOST_BYTES`, whether its length was announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MOST_BYTES:
                raise _TooLarge
            return message

        try:
            if announced.isdigit() and int(announced[:20]) > MOST_BYTES:
                raise _TooLarge
            await self._app(scope, bounded, send)
        except _TooLarge:
            refusal = LastResponse(body("too_large", f"The body has more than {MOST_BYTES} bytes."), 413)
            await refusal(scope, receive, send)


class _TooLarge(Exception):
    pass
