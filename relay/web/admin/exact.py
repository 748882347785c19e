"""JSON of jobs in requests and answers, in which every number keeps its text: a float has 17 digits."""

import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from relay.jobs.templates import json_object
from relay.wire.json_text import members
from relay.wire.templates import encode_json


class Number(float):
    """What fields of our own take for the float that it is."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Number":
        made = super().__new__(cls, text)
        made.text = text
        return made


class ExactRoute(APIRoute):
    """A route whose requests have a `Number` wherever their JSON has one that is no integer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def exact(request: Request) -> Response:
            return await handle(_Exact(request.scope, request.receive))

        return exact


class _Exact(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), parse_float=Number)
        return self._json


class _Written(str):
    """A piece of JSON."""

    __slots__ = ()


def json_text(value: Any) -> str:
    """What came with a request, as compact JSON. As deep as it came: no call for each level."""
    written: list[str] = []
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, _Written):
            written.append(part)
        elif isinstance(part, Number):
            written.append(part.text)
        elif isinstance(part, dict | list) and part:
            left += reversed([*_members(part), _Written("}" if isinstance(part, dict) else "]")])
        else:
            written.append(encode_json(part))
    return "".join(written)


def _members(part: dict[str, Any] | list[Any]) -> Iterator[Any]:
    """What is written of them, and their values."""
    if isinstance(part, list):
        for index, member in enumerate(part):
            yield _Written("," if index else "[")
            yield member
    else:
        for index, (name, member) in enumerate(part.items()):
            yield _Written(f"{',' if index else '{'}{encode_json(name)}:")
            yield member


def json_answer(model: BaseModel, exact: Mapping[str, str | None]) -> str:
    """The model as JSON, with members that PostgreSQL has as JSON already."""
    texts = members(model.model_dump_json()) | {name: text or "null" for name, text in exact.items()}
    return json_object(texts)


def answer(text: str) -> Response:
    return Response(text.encode(), media_type="application/json")
