"""The arguments of a handler as a JSON object, and back: pydantic decides by the annotations.

They are checked twice: before a job is sent, and when it runs, since by then the handler may have changed. A
default is not sent: the code that runs the job decides it. The first check reads its own JSON again, so that no type
that can be written but not read surprises a worker.
"""

import contextlib
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NotRequired

import msgspec
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import CoreConfig, PydanticSerializationError, SchemaSerializer, from_json
from typing_extensions import TypedDict

from relay.jobs.context import Context, Running, made
from relay.jobs.errors import BadArguments, HandlerError

_WRITING = CoreConfig(ser_json_inf_nan="strings")

_SIGNS = "null", "NaN", "Infinity"
"""One of them is in what JSON makes of infinity and NaN."""
_SIMPLE = (str, int, bool)
_SURELY_READ = 4000
"""Characters of JSON. There is a limit of digits, which is higher."""
_NOT_JSON = "JSON cannot hold it"
_NUL = "it has the character NUL, which PostgreSQL cannot store"
# pydantic needs that of typing_extensions before Python 3.12.
make_typed_dict: Any = TypedDict


class _Number(float):
    """A float that pydantic makes the Decimal of its text from."""

    def __new__(cls, text: str) -> "_Number":
        made = super().__new__(cls, text)
        made._text = text
        return made

    _text: str

    def __str__(self) -> str:
        return self._text


_EXACT = msgspec.json.Decoder(float_hook=_Number)


class Arguments:
    """What the handler of the job `name` takes, without its context."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self._signature = inspect.signature(function)
        for each in self._signature.parameters.values():
            if each.kind is each.VAR_POSITIONAL:
                raise HandlerError(f"job {name!r}: *{each.name} has no name in the payload; write named arguments")

    @property
    def names(self) -> list[str]:
        """Of all parameters, with the context's."""
        return list(self._signature.parameters)

    def check(self) -> None:
        """Raises HandlerError if an annotation is unknown, or is nothing that JSON can hold."""
        self._adapter  # noqa: B018  made at its first use: annotations may name what is defined later

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names, each of its annotated type. Raises BadArguments."""
        values = {**dict(zip(self._positional, args, strict=False)), **kwargs}
        if values.keys() != self._each or len(values) != len(args) + len(kwargs):
            values = self._bind_slowly(args, kwargs)
        try:
            return self._adapter.validate_python(values)
        except ValidationError as error:
            raise self._invalid(error) from None

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Also where an argument is left out, and where the call does not fit."""
        try:
            values = dict(self._outside.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise self._bad(str(error)) from None
        if self._rest is not None:
            values |= values.pop(self._rest, {})
        return values

    def with_defaults(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, and the defaults of those that are missing."""
        parameters = self._outside.parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty} | dict(values)

    def to_json(self, values: dict[str, Any]) -> str:
        """The payload. Raises BadArguments."""
        try:
            text = self._dump(values)
        except ValueError:
            raise self._bad(*self._unserialisable(values)) from None
        if _has_nul(text):
            raise self._bad(
                "; ".join(f"argument {name!r}: {_NUL}" for name in values if _has_nul(self._dump({name: values[name]})))
            )
        if self._is_simple and len(text) < _SURELY_READ:
            return text
        read = self.from_json(text)
        if any(sign in text for sign in _SIGNS):
            self._check_numbers(values, text, read)
        return text

    def from_json(self, payload: str | bytes) -> dict[str, Any]:
        """The arguments of a payload, each of its annotated type. Raises BadArguments."""
        try:
            values = self._adapter.validate_json(payload)
        except ValidationError as error:
            raise self._invalid(error) from None
        if not self._has_decimals:
            return values
        # pydantic makes a Decimal of a float, which has 17 digits. Where the rules differ, those of JSON count.
        with contextlib.suppress(ValidationError, msgspec.MsgspecError, RecursionError):
            return self._adapter.validate_python(_EXACT.decode(payload))
        return values

    def call(self, values: Mapping[str, Any], running: Running) -> Any:
        """Calls the function."""
        given = values if self._context is None else {**values, self._context: made(running)}
        if self._takes_names:
            return self._function(**given)
        given = dict(given)
        named = {name: given.pop(name) for name in self._signature.parameters if name in given}
        if self._rest is not None:
            named[self._rest] = given
        bound = inspect.BoundArguments(self._signature, named)
        return self._function(*bound.args, **bound.kwargs)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except (NameError, TypeError) as error:
            raise HandlerError(f"job {self._name!r}: an annotation of its handler is unknown: {error}") from error

    @cached_property
    def _context(self) -> str | None:
        """The parameter that takes the context."""
        found = [name for name, hint in self._hints.items() if hint is Context and name != "return"]
        if len(found) > 1:
            raise HandlerError(f"job {self._name!r}: its handler takes the context twice: {', '.join(found)}")
        return found[0] if found else None

    @cached_property
    def _outside(self) -> inspect.Signature:
        """How a job is enqueued."""
        parameters = self._signature.parameters
        return self._signature.replace(parameters=[each for each in parameters.values() if each.name != self._context])

    @cached_property
    def _positional(self) -> tuple[str, ...]:
        """Those that a call may give without their names."""
        parameters = self._outside.parameters.values()
        return tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)

    @cached_property
    def _each(self) -> frozenset[str] | None:
        """All names, if a call that gives each argument once fits whatever the order; else None."""
        parameters = self._outside.parameters.values()
        plain = all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters)
        return frozenset(each.name for each in parameters) if plain else None

    @cached_property
    def _takes_names(self) -> bool:
        """Whether it can be called by names alone, which is quicker."""
        return all(each.kind is not each.POSITIONAL_ONLY for each in self._signature.parameters.values())

    @cached_property
    def _rest(self) -> str | None:
        """The name of `**kwargs`."""
        parameters = self._outside.parameters.values()
        return next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)

    @cached_property
    def _adapter(self) -> TypeAdapter[dict[str, Any]]:
        fields: dict[str, Any] = {}
        for each in self._outside.parameters.values():
            if each.name != self._rest:
                hint = self._hints.get(each.name, Any)
                self._check_type(each.name, hint)
                fields[each.name] = hint if each.default is each.empty else NotRequired[hint]
        kind = make_typed_dict(f"Arguments of {self._name}", fields)
        kind.__pydantic_config__ = ConfigDict(extra="forbid" if self._rest is None else "allow")
        return TypeAdapter(kind)

    @cached_property
    def _is_simple(self) -> bool:
        """Whether what is written can be read, without trying: texts and numbers that are whole."""
        fields = [each.name for each in self._outside.parameters.values()]
        return self._rest is None and all(self._hints.get(name) in _SIMPLE for name in fields)

    @cached_property
    def _has_decimals(self) -> bool:
        return "'type': 'decimal'" in repr(self._adapter.core_schema)

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        # pydantic reads only half of the configuration of a TypedDict: not how it is written.
        return SchemaSerializer(self._adapter.core_schema, _WRITING)

    def _check_type(self, argument: str, hint: Any) -> None:
        try:
            TypeAdapter(hint)
        except (PydanticSchemaGenerationError, PydanticUserError):
            shown = getattr(hint, "__name__", None) or repr(hint)
            raise HandlerError(
                f"job {self._name!r}: argument {argument!r} has the type {shown}, and {_NOT_JSON}; pass an identifier, "
                "a dataclass or a pydantic model instead"
            ) from None

    def _dump(self, values: dict[str, Any]) -> str:
        return self._serializer.to_json(values, warnings="error").decode()

    def _check_numbers(self, values: dict[str, Any], text: str, read: dict[str, Any]) -> None:
        """Raises BadArguments where infinity or NaN has become something else: null in a model, a text without an
        annotation that says otherwise, or what is JSON for Python only."""
        lost = _not_finite(self._plain(values))
        if lost and _is_json(text):
            lost -= _not_finite(self._plain(read))
        if lost:
            raise self._bad("; ".join(f"{_place(at)}: {_NOT_JSON}: infinity, or not a number" for at in sorted(lost)))

    def _plain(self, values: dict[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = self._serializer.to_python(values, warnings=False)
        return plain

    def _unserialisable(self, values: dict[str, Any]) -> tuple[str]:
        for name, value in values.items():
            try:
                self._dump({name: value})
            except (PydanticSerializationError, ValueError) as error:
                return (f"argument {name!r}: {_NOT_JSON}: {error}",)
        return (_NOT_JSON,)

    def _invalid(self, error: ValidationError) -> BadArguments:
        """In the words of pydantic, without the values."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return self._bad("; ".join(f"{_place(each['loc'])}: {each['msg']}" for each in found))

    def _bad(self, text: str) -> BadArguments:
        return BadArguments(f"job {self._name!r}: {text}")


def _place(place: tuple[int | str, ...]) -> str:
    return f"argument {'.'.join(map(str, place))!r}" if place else "its payload"


def _not_finite(plain: object) -> set[tuple[str, ...]]:
    """Where infinity and NaN are. Members of a set have its place."""
    found: set[tuple[str, ...]] = set()
    rest: list[tuple[tuple[str, ...], object]] = [((), plain)]
    while rest:
        place, value = rest.pop()
        match value:
            case float() if not math.isfinite(value):
                found.add(place)
            case dict():
                rest += [((*place, str(key)), inner) for key, inner in value.items()]
            case list() | tuple():
                rest += [((*place, str(index)), inner) for index, inner in enumerate(value)]
            case set() | frozenset():
                rest += [(place, inner) for inner in value]
    return found


def _is_json(text: str) -> bool:
    """Also without the constants of Python, as a model may have been told to write."""
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _has_nul(text: str) -> bool:
    """Whether JSON has its escape: not where the backslash itself is escaped."""
    return "\\u0000" in text and "\\u0000" in text.replace("\\\\", "")
