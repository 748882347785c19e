"""A template is understood or refused when it is configured; what a message fills in makes text of it and nothing else.

In the URL of a webhook it is one part of the path or one value of the query; a subject of NATS has no wildcard that a
message brought; and the text is exactly that of the variables.
"""

import contextlib
import json
import random
import re
from typing import Any
from urllib.parse import unquote

from relay.backends.nats.sink import _subject_problem
from relay.backends.webhook.url import UrlTemplate
from relay.errors import ConfigError
from relay.models import Message, Record
from relay.wire.encode import Wire
from relay.wire.templates import RECORD_VARIABLES, TEMPLATE_VARIABLES, RecordTemplate, encode_json
from tests.fuzz.generate import swarm, text, value
from tests.fuzz.running import main

NOON = "2025-03-01T12:00:00.000000Z"
LITERALS = ("", "a", ".", "/", "{{", "}}", "x-", "?", "&k=", "ü", "%41", "*")
SAFE_IN_URL = re.compile(rb"[A-Za-z0-9/?:@!$&'()*+,;=\-._~%]*")


def case(rng: random.Random) -> None:
    rng.choice((configured, subject, record_template, url))(rng)


def configured(rng: random.Random) -> None:
    """Anything at all."""
    wild = text(rng, 9) + rng.choice(("", "{key}", "{key!r}", "{key:>99999999}", "{0}", "{}", "{key.a}", "{key[a]}"))
    for make in (RecordTemplate, UrlTemplate, lambda t: UrlTemplate("https://a" + t), wire):
        with contextlib.suppress(ConfigError):
            make(wild)


def subject(rng: random.Random) -> None:
    """The subject is what its parts are, and no part of a message is a template again."""
    message, headers = made(rng)
    names = ["op", "outbox_id", "refresh_id", "type", "aggregate_type", "key", "outbox", "pipeline", "stream_table"]
    assert set(names) == set(TEMPLATE_VARIABLES)
    values = {name: as_text(headers.get(name, "")) for name in names}
    values |= {"op": as_text(headers.get("op", "insert")), "outbox_id": str(message.id), "key": message.key or ""}
    values |= {"outbox": "orders", "stream_table": "orders", "pipeline": "p"}
    template, expected = filled(rng, names, values)
    (record,) = wire(template).records([message])
    assert record.subject == expected
    problem = _subject_problem(record.subject)
    if problem is None:
        tokens = record.subject.split(".")
        assert "" not in tokens
        assert not {"*", ">"} & set(tokens)
        assert not re.search(r"[ \t\r\n\f\v]", record.subject), "it would end the line of the protocol"


def record_template(rng: random.Random) -> None:
    record = as_record(rng)
    names = [*(name for name in RECORD_VARIABLES if name != "header.NAME"), "header.type", "headers[a b]"]
    values = {
        "key": record.key or "", "outbox": "orders", "outbox_id": str(record.id), "subject": record.subject,
        "type": record.headers.get("type", ""), "header.type": record.headers.get("type", ""),
        "headers[a b]": record.headers.get("a b", ""),
    }  # fmt: skip
    template, expected = filled(rng, names, values)
    assert RecordTemplate(template).render(record) == expected


def url(rng: random.Random) -> None:
    """As many parts and parameters as the template has, each what its variable says."""
    record = as_record(rng)
    target = UrlTemplate("https://host.example/a/{key}/{subject}?k={key}&t={type}").target(record)
    if target is None:
        assert not record.key or not record.subject or {record.key, record.subject} & {".", ".."}
        return
    assert SAFE_IN_URL.fullmatch(target), target
    path, _, query = target.decode().partition("?")
    empty, a, key_part, subject_part = path.split("/")
    assert (empty, a) == ("", "a")
    assert (unquote(key_part), unquote(subject_part)) == (record.key, record.subject)
    assert {key_part, subject_part}.isdisjoint({".", "..", ""})
    k, t = query.split("&")
    assert (unquote(k), unquote(t)) == (f"k={record.key}", f"t={record.headers.get('type', '')}")


def filled(rng: random.Random, names: list[str], values: dict[str, str]) -> tuple[str, str]:
    """A template, and what it must become."""
    template = expected = ""
    for _ in range(rng.randrange(1, 5)):
        literal, name = rng.choice(LITERALS), rng.choice(names)
        template += f"{literal}{{{name}}}"
        expected += literal.replace("{{", "{").replace("}}", "}") + values[name]
    return template, expected


def wire(template: str) -> Wire:
    return Wire(
        outbox="orders", pipeline="p", subject_template=template, wire_format="raw", keeps_headers=True, binding=None
    )


def made(rng: random.Random) -> tuple[Message, dict[str, Any]]:
    names = ("op", "type", "refresh_id", "aggregate_type", "a b")
    headers = {swarm(rng, names, lambda: text(rng, 3)): value(rng, 1) for _ in range(rng.randrange(5))}
    own = json.dumps(headers, ensure_ascii=rng.random() < 0.5).encode()
    return Message(rng.randrange(1, 2**63), rng.choice((None, "k", text(rng))), b"{}", own, NOON), json.loads(own)


def as_record(rng: random.Random) -> Record:
    headers = {"type": text(rng), "a b": text(rng)} if rng.random() < 0.8 else {}
    return Record(
        17, "orders:17", rng.choice(("s", ".", "..", text(rng))), rng.choice((None, "..", text(rng))), b"", headers
    )


def as_text(found: Any) -> str:
    return found if isinstance(found, str) else encode_json(found)


if __name__ == "__main__":
    main("templates", case)
