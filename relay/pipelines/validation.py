"""Checks a configuration against a pydantic model; each problem names the key and what to do."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.masking import mask

M = TypeVar("M", bound=BaseModel)


def keys_of(model: type[BaseModel]) -> set[str]:
    """Every name of every key of a model, aliases included."""
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            keys |= {choice for choice in field.validation_alias.choices if isinstance(choice, str)}
        elif isinstance(field.validation_alias, str):
            keys.add(field.validation_alias)
    return keys


def validate(
    model: type[M],
    values: dict[str, Any],
    known: list[str],
    problems: list[str],
    shown: Mapping[str, str] = MappingProxyType({}),
) -> M | None:
    """The model, or None with the problems added to `problems`.

    `shown` maps a key to the name that the user knows, if that differs.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems += [_problem(detail, known, shown) for detail in error.errors(include_url=False, include_input=False)]
        return None


def _problem(detail: ErrorDetails, known: list[str], shown: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    key = shown.get(key, key)
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1)
        guess = f", did you mean {near[0]}" if near else ""
        return f"{key}: unknown key{guess}; known: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{key}: is missing"
    text = mask(detail["msg"].removeprefix("Value error, "))
    return f"{key}: {text}" if key else text
