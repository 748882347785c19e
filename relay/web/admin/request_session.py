"""The session of a request."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from relay.operations.base import Connection
from relay.web.admin.sessions import Sessions


def _session(request: Request) -> Iterator[Connection]:
    sessions: Sessions = request.app.state.sessions
    with sessions.session() as connection:
        yield connection


Session = Annotated[Connection, Depends(_session)]
