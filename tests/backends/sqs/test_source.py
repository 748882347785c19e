from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.backends.sqs.source_harness import SqsSourceHarness
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy


class Refusing(SqsSourceHarness):
    """On a server that asks who we are."""

    def wrong_credentials(self) -> dict[str, Any]:
        return {"secret_access_key": "wrong-secret", "access_key_id": "AKIAWRONG"}


class TestSqsSource(SourceSuite):
    @pytest.fixture
    def harness(
        self, request: pytest.FixtureRequest, moto_server: MotoServer, proxy: Callable[[str], Proxy]
    ) -> SourceHarness:
        if "credentials" in request.node.name:
            server = request.getfixturevalue("strict_moto")
            return Refusing(server, proxy(server.url))
        return SqsSourceHarness(moto_server, proxy(moto_server.url))
