"""Logs: one line for each event, from us and from dependencies, and no secret in any."""

import io
import json
import logging
import sys

import pytest
import structlog

from relay import known_secrets
from relay.masking import remember
from relay.process.logs import configure_logging
from relay.settings import Settings


@pytest.fixture
def log(monkeypatch):
    """Configures logging for this test and gives what was written since the last call, by line."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    known_secrets.forget_all()
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    stream = io.StringIO()

    def configure(**options):
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(Settings.load(postgres_url="postgresql://db", **options))

    def lines():
        written = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return written

    yield configure, lines
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_tells_when_what_where_and_all_fields(log):
    configure, lines = log
    configure(log_format="json")
    structlog.get_logger("relay.test").info("drained", pipeline="orders", messages=3)
    (line,) = lines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "drained", "level": "info", "logger": "relay.test", "pipeline": "orders", "messages": 3}


def test_a_text_line_has_no_colours_when_nobody_looks(log):
    configure, lines = log
    configure()
    structlog.get_logger("relay.test").warning("drained", pipeline="orders")
    (line,) = lines()
    assert "\x1b" not in line
    assert "warning" in line and "drained" in line and "pipeline=orders" in line


def test_dependencies_take_the_same_way(log):
    configure, lines = log
    configure(log_format="json")
    logging.getLogger("some.dependency").warning("failed %d times", 3, extra={"port": 4222})
    (line,) = lines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["logger"]) == ("failed 3 times", "warning", "some.dependency")
    assert event["port"] == 4222


def test_the_level_holds_for_all(log):
    configure, lines = log
    configure(log_level="warning")
    structlog.get_logger("relay.test").info("unheard")
    logging.getLogger("some.dependency").info("unheard")
    assert lines() == []


def test_chatty_dependencies_speak_only_when_debugging(log):
    configure, lines = log
    configure(log_level="info")
    logging.getLogger("pika.adapters").info("insides")
    assert lines() == []
    configure(log_level="debug")
    logging.getLogger("pika.adapters").info("insides")
    assert len(lines()) == 1


def test_a_handler_that_dramatiq_put_there_is_replaced_and_others_stay(log):
    configure, lines = log
    root = logging.getLogger()
    dramatiqs, others = logging.StreamHandler(io.StringIO()), logging.NullHandler()
    root.addHandler(dramatiqs)
    root.addHandler(others)
    configure()
    configure()
    logging.getLogger("relay.test").info("once")
    assert len(lines()) == 1
    assert dramatiqs not in root.handlers
    assert others in root.handlers


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_written_wherever_it_stands(log, log_format):
    configure, lines = log
    remember("s3cret-value")
    configure(log_format=log_format)
    logger = structlog.get_logger("relay.test")
    logger.info("with s3cret-value", url="nats://u:url-pw@h", nested={"a": ["s3cret-value", ("s3cret-value",)]})
    logger.info("object", error=ValueError("s3cret-value"))
    logging.getLogger("some.dependency").info("%s and password=%s", "s3cret-value", "pair-pw")
    try:
        raise ValueError("s3cret-value")
    except ValueError:
        logger.exception("failed")
        logging.getLogger("some.dependency").exception("failed")
    text = "\n".join(lines())
    assert "ValueError" in text and "***" in text
    for secret in ("s3cret-value", "url-pw", "pair-pw"):
        assert secret not in text
    assert "\x1b" not in text


def test_an_exception_in_json_is_one_line(log):
    configure, lines = log
    configure(log_format="json")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("relay.test").exception("failed")
    (line,) = lines()
    assert "ValueError: broken" in json.loads(line)["exception"]


# Without a lone surrogate: pytest keeps the record, and xdist cannot send it.
HOSTILE = "\x1b[2J \x9b31m \x7f \u202e \u2028 \u200b \u061c \U000e0041 \r\n2026-01-01 [error] forged"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_others_wrote_cannot_move_a_terminal_or_forge_a_line(log, log_format):
    configure, lines = log
    configure(log_format=log_format)
    logger = structlog.get_logger("relay.test")
    logger.info(HOSTILE, key=HOSTILE, nested={HOSTILE: [HOSTILE]}, **{HOSTILE: 1})
    logging.getLogger("some.dependency").warning("%s", HOSTILE)
    written = lines()
    assert len(written) == 2
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("failed")
    written += lines()
    assert all(line == "".join(c for c in line if c.isprintable()) for line in written)
    assert not [line for line in written if line.startswith("2026-01-01 [error]")]
    if log_format == "json":
        assert json.loads(written[0])["key"] == HOSTILE
        assert len(written) == 3


def test_a_value_is_bounded_however_large_and_deep(log):
    configure, lines = log
    configure(log_format="json")
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    structlog.get_logger("relay.test").info("a" * 100_000, many=["b" * 9000] * 9000, deep=deep, number=10**4000)
    (line,) = lines()
    assert len(line) < 500_000
    assert json.loads(line)["event"].endswith("(100000 characters)")


def test_what_nothing_catches_is_one_line_too(log):
    configure, lines = log
    known_secrets.remember("s3cret-value")
    configure(log_format="json")
    try:
        raise ValueError("s3cret-value \x1b[2J")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    (line,) = lines()
    assert "ValueError: *** " in json.loads(line)["exception"]
    assert "s3cret" not in line
