"""`publish` and its kin: values become JSON, and one call of SQL writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.database.callers import Value, call, call_async
from relay.errors import BadValue
from relay.outbox.json_values import json_text

_Arguments = dict[str, tuple[str, Value]]


@dataclass(frozen=True, slots=True)
class Message:
    """A message for `publish_many`."""

    payload: Any
    key: str | None = None
    headers: Mapping[str, Any] | None = None


def publish(
    connection: Any, outbox: str, payload: Any, *, key: str | None = None, headers: Mapping[str, Any] | None = None
) -> int:
    """Publishes a message in the transaction of the connection, and returns its id.

    `payload` is anything that JSON can hold: dict, list, text, number, bool, None; a dataclass or a pydantic model; in
    them also datetime, date, time, Decimal, UUID and Enum. A Decimal becomes a text, so that it keeps every digit.
    `key` decides the order of delivery where a sink keeps one for each key.

    Raises BadValue, which names the place in the payload, before anything is sent; NotFound, Disabled, TooLarge or
    NotAllowed if PostgreSQL refuses the message; MigrationError if the database has no schema `tide`; TypeError for a
    connection that is not known; and the driver's own errors for all that befalls connection and transaction. After an
    error of PostgreSQL the transaction can only be rolled back, as after that of any statement.
    """
    [(new_id,)] = call(connection, "outbox_publish", _one(outbox, payload, key, headers))
    return int(new_id)


async def publish_async(
    connection: Any, outbox: str, payload: Any, *, key: str | None = None, headers: Mapping[str, Any] | None = None
) -> int:
    """`publish` on an asynchronous connection."""
    [(new_id,)] = await call_async(connection, "outbox_publish", _one(outbox, payload, key, headers))
    return int(new_id)


def publish_many(connection: Any, outbox: str, messages: Iterable[Any]) -> list[int]:
    """Publishes messages in one call, all or none, and returns their ids in the order of the messages.

    Each is a `Message`, or a payload without key and headers. A call takes at most a million messages and 256 MiB.
    """
    [(ids,)] = call(connection, "outbox_publish_many", _many(outbox, messages))
    return list(ids)


async def publish_many_async(connection: Any, outbox: str, messages: Iterable[Any]) -> list[int]:
    """`publish_many` on an asynchronous connection."""
    [(ids,)] = await call_async(connection, "outbox_publish_many", _many(outbox, messages))
    return list(ids)


def _one(outbox: str, payload: Any, key: str | None, headers: Mapping[str, Any] | None) -> _Arguments:
    return {
        "outbox": ("text", outbox),
        "payload": ("jsonb", json_text(payload, "payload")),
        "headers": ("jsonb", _headers(headers, "headers")),
        "key": ("text", _key(key, "key")),
    }


def _many(outbox: str, messages: Iterable[Any]) -> _Arguments:
    if isinstance(messages, str | bytes | Mapping):
        raise BadValue(f"messages: must be a list of messages or payloads, not {type(messages).__name__}")
    payloads, keys, headers = [], [], []
    for index, each in enumerate(messages):
        message = each if isinstance(each, Message) else Message(each)
        place = f"messages[{index}]"
        payloads.append(json_text(message.payload, f"{place}.payload"))
        keys.append(_key(message.key, f"{place}.key"))
        headers.append(_headers(message.headers, f"{place}.headers"))
    # What no message has is not sent.
    return {
        "outbox": ("text", outbox),
        "payloads": ("jsonb[]", payloads),
        "keys": ("text[]", keys if any(key is not None for key in keys) else None),
        "headers": ("jsonb[]", headers if any(each != "{}" for each in headers) else None),
    }


def _headers(headers: Mapping[str, Any] | None, place: str) -> str:
    if headers is None:
        return "{}"
    if not isinstance(headers, Mapping):
        raise BadValue(f"{place}: must be a dict, not {type(headers).__name__}")
    return json_text(headers, place)


def _key(key: str | None, place: str) -> str | None:
    if key is not None and not isinstance(key, str):
        raise BadValue(f"{place}: must be a text, not {type(key).__name__}; for example str(customer_id)")
    return key
