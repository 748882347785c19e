import ssl

import amqp.exceptions  # type: ignore[import-untyped]
import pytest

from relay.backends.rabbitmq.errors import ERRORS, largest_message_bytes
from relay.errors import ConfigError, NotConnected
from tests.backends.clients import differences


def test_the_table_names_every_exception_of_the_client_and_none_besides() -> None:
    assert differences(ERRORS, amqp.exceptions, "amqp") == set()


def test_every_reply_code_of_the_server_has_an_answer() -> None:
    for code, kind in amqp.exceptions.ERROR_MAP.items():
        known = ERRORS.exceptions[f"amqp.exceptions.{kind.__name__}"]
        assert ERRORS.verdict(kind("any text", reply_code=code)).code == known


def test_only_what_a_record_itself_does_wrong_is_permanent() -> None:
    assert ERRORS.permanent == {"too_large"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (amqp.exceptions.AccessRefused("ACCESS_REFUSED - Login was refused using authentication"), "auth"),
        (amqp.exceptions.AccessRefused("ACCESS_REFUSED - access to queue 'limits' refused for user 'x'"), "forbidden"),
        (amqp.exceptions.NotAllowed("NOT_ALLOWED - vhost limited not found"), "forbidden"),
        (amqp.exceptions.NotAllowed("NOT_ALLOWED - user 'x': connection limit (1) is reached"), "limits"),
        (amqp.exceptions.PreconditionFailed("delivery acknowledgement on channel 1 timed out"), "timeout"),
        (amqp.exceptions.ConnectionError("Couldn't find appropriate auth mechanism"), "auth"),
        (ssl.SSLCertVerificationError("self-signed"), "tls"),
        (ConnectionRefusedError(111, "refused"), "not_connected"),
        (TimeoutError("no answer in time"), "timeout"),
        (OSError("a limit (of files)"), "not_connected"),
        (ValueError("a bug"), "not_connected"),
    ],
)
def test_answers_and_errors_of_the_system_have_a_code(error: Exception, code: str) -> None:
    assert ERRORS.verdict(error) == (False, code)


@pytest.mark.parametrize("opening", [True, False])
def test_a_person_is_called_only_when_it_opens(opening: bool) -> None:
    for kind in amqp.exceptions.ERROR_MAP.values():
        code = ERRORS.exceptions[f"amqp.exceptions.{kind.__name__}"]
        error = ERRORS.translated(kind("text", reply_code=1), "pipeline 'p'", opening=opening)
        expected = ConfigError if opening and code in ERRORS.needs_operator | ERRORS.permanent else NotConnected
        assert type(error) is expected
        assert "pipeline 'p'" in str(error)


def test_the_consumers_name_is_not_the_reason() -> None:
    error = amqp.exceptions.ConsumerCancelled("tide-relay p", (60, 30))
    assert "queue was deleted" in str(ERRORS.lost(error, "here"))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("PRECONDITION_FAILED - message size 20 is larger than configured max size 10", 10),
        ("PRECONDITION_FAILED - message size 20 larger than max size 10", 10),
        ("PRECONDITION_FAILED - unknown delivery tag 20", None),
    ],
)
def test_the_limit_is_read_from_the_refusal(text: str, limit: int | None) -> None:
    assert largest_message_bytes(amqp.exceptions.PreconditionFailed(text)) == limit
