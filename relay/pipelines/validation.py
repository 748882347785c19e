"""Checks a configuration against a pydantic model; each problem names the key and what to do."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.errors import ConfigError
from relay.masking import mask
from relay.wording import worded

M = TypeVar("M", bound=BaseModel)

MOST_PROBLEMS = 20
"""That are told: a configuration may have a hundred thousand wrong keys, and looking for the nearest takes time."""
_LONGEST_KEY = 80


def keys_of(model: type[BaseModel]) -> set[str]:
    """Every name of every key of a model, aliases included."""
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            keys |= {choice for choice in field.validation_alias.choices if isinstance(choice, str)}
        elif isinstance(field.validation_alias, str):
            keys.add(field.validation_alias)
    return keys


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    lowered = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name[:_LONGEST_KEY].lower().replace("-", "_"), lowered, n=1)
    return lowered[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean NEAREST?`, or nothing."""
    near = nearest(name, known)
    return f", did you mean {near}?" if near else ""


def validate(
    model: type[M],
    values: dict[str, Any],
    known: list[str],
    problems: list[str],
    shown: Mapping[str, str] = MappingProxyType({}),
) -> M | None:
    """The model, or None with the problems added to `problems`.

    `known` are the keys on the level of `values`. `shown` maps a key to the name that the user knows, if that differs.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    # Every problem counts; only as many are worded as will be told.
    problems += [_problem(model, detail, known, shown) for detail in details[:MOST_PROBLEMS]]
    problems += [""] * (len(details) - MOST_PROBLEMS)
    return None


def refuse(problems: Sequence[str]) -> None:
    """Raises ConfigError that says all of them, if there are any: of very many the first."""
    if not problems:
        return
    told = [problem for problem in problems if problem][:MOST_PROBLEMS]
    more = len(problems) - len(told)
    raise ConfigError("; ".join([*told, *([f"and {more} more; correct these first"] if more else [])]))


def _problem(model: type[BaseModel], detail: ErrorDetails, known: list[str], shown: Mapping[str, str]) -> str:
    path, inner = _path(model, detail["loc"])
    path = shown.get(path, path)
    if detail["type"] == "extra_forbidden":
        of_level = sorted(keys_of(inner)) if inner is not None else known
        above, _, key = path.rpartition(".")
        near = nearest(key, of_level)
        if near is None:
            return f"{path}: unknown key; known: {', '.join(of_level)}"
        return f"{path}: unknown key, did you mean {f'{above}.{near}' if above else near}?"
    if detail["type"] == "missing":
        return f"{path}: is missing"
    text = mask(worded(detail))
    return f"{path}: {text}" if path else text


def _path(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[str, type[BaseModel] | None]:
    """The path as the configuration has it, and the model of its last level, if that is not the given one.

    pydantic's path names, for a choice between models, which one was chosen: that is no part of the configuration.
    """
    path, level, models = "", model, [model]
    for part in loc:
        tagged = [each for each in models if _tag(each) == part]
        if len(models) > 1 and tagged:
            models = tagged
            continue
        level = models[0]
        path += f"[{part}]" if isinstance(part, int) else f".{part[:_LONGEST_KEY]}" if path else part[:_LONGEST_KEY]
        if not isinstance(part, int):
            found = level.model_fields.get(part)
            models = list(_models(found.annotation)) if found is not None else [level]
            models = models or [level]
    return path, None if level is model else level


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value of this type may be, or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tag(model: type[BaseModel]) -> str | None:
    """Of a model that is chosen by its key `type`."""
    field = model.model_fields.get("type")
    if field is not None and get_origin(field.annotation) is Literal:
        return str(get_args(field.annotation)[0])
    return None
