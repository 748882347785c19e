import json
from decimal import Decimal

import pytest

from tests.backends.harness import Harness
from tests.backends.postgresql.inbox_harness import InboxHarness
from tests.backends.steps import opened, publish, record
from tests.backends.suite import SinkSuite
from tests.services.postgres import Database


class TestInboxOfAnotherDatabase(SinkSuite):
    @pytest.fixture
    def harness(self, inbox_database: Database) -> Harness:
        return InboxHarness(inbox_database)

    def test_bodies_arrive_unchanged(self, harness: Harness) -> None:
        """As JSON values: jsonb keeps no white space. Invalid JSON is permanently refused."""
        bodies = [b'{"a": 1}', '{"ü": "日本語 🚀"}'.encode(), b'"' + b"x" * 512 * 1024 + b'"', b"null", b'"\\n"', b"{}"]
        bodies += [b"[" * 500 + b"]" * 500, b"12345678901234567890.123456789"]
        with opened(harness) as sink:
            assert publish(sink, [record(harness, number, body=body) for number, body in enumerate(bodies, 1)]) == []
            for number, body in enumerate((b"", b"{", b"\xff", b'"\\u0000"'), 100):
                (failure,) = publish(sink, [record(harness, number, body=body)])
                assert (failure.index, failure.permanent, failure.code) == (0, True, "refused")
        arrived = [json.loads(seen.body, parse_float=Decimal) for seen in harness.read_all()]
        assert arrived == [json.loads(body, parse_float=Decimal) for body in bodies]
