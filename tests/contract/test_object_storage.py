import pytest

from tests.contract.harness import Harness
from tests.contract.object_storage_harness import BucketHarness
from tests.contract.suite import SinkSuite
from tests.services.moto import MotoServer


class TestLinesInABucket(SinkSuite):
    @pytest.fixture
    def harness(self, moto_server: MotoServer) -> Harness:
        return BucketHarness(moto_server)


class TestParquetInABucket(SinkSuite):
    @pytest.fixture
    def harness(self, moto_server: MotoServer) -> Harness:
        return BucketHarness(moto_server, format="parquet")
