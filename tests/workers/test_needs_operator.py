"""How a drain ends that no retry helps: marked so, for `relay status`, and retried all the same."""

import pytest

from relay.backends.memory.sink import MemorySink
from relay.backends.memory.source import MemorySource, forget
from relay.errors import MissingExtra, NotConnected

FAILURES = [
    ("open", MissingExtra("memory", "memory"), "config", True),
    ("open", NotConnected("refused", code="auth"), "auth", True),
    ("open", NotConnected("no answer", code="timeout"), "timeout", False),
]


def fail(monkeypatch, kind, method, error):
    def failing(*_):
        raise error

    monkeypatch.setattr(kind, "needs_operator", frozenset({"auth"}))
    monkeypatch.setattr(kind, method, failing)


def check_end(bench, monkeypatch, code, needs_operator):
    assert bench.drain() == "failed"
    assert (bench.last("error_code"), bench.last("needs_operator")) == (code, needs_operator)
    monkeypatch.undo()
    assert bench.drain() != "failed"
    assert bench.last("needs_operator") is False, "an end that is good takes it back"


@pytest.mark.parametrize(
    ("method", "error", "code", "needs_operator"),
    [*FAILURES, ("publish", NotConnected("refused", code="auth"), "auth", True)],
)
def test_of_a_forward_pipeline(bench, monkeypatch, method, error, code, needs_operator):
    bench.publish_to(sink_type="memory")
    bench.publish()
    fail(monkeypatch, MemorySink, method, error)
    check_end(bench, monkeypatch, code, needs_operator)


@pytest.mark.parametrize(
    ("method", "error", "code", "needs_operator"),
    [*FAILURES, ("fetch", NotConnected("refused", code="auth"), "auth", True)],
)
def test_of_a_reverse_pipeline(bench, monkeypatch, method, error, code, needs_operator):
    bench.receive_into("commands", slice_ms=100)
    fail(monkeypatch, MemorySource, method, error)
    try:
        check_end(bench, monkeypatch, code, needs_operator)
    finally:
        forget("commands")
