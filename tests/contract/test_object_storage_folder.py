from pathlib import Path

import pytest

from tests.contract.harness import Harness
from tests.contract.object_storage_harness import FolderHarness
from tests.contract.suite import SinkSuite


class TestLinesInAFolder(SinkSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FolderHarness(tmp_path / "objects")


class TestZstdLinesInAFolder(SinkSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FolderHarness(tmp_path / "objects", compression="zstd")


class TestParquetInAFolder(SinkSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FolderHarness(tmp_path / "objects", format="parquet", compression="zstd")
