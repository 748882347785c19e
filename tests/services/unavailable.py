"""A service that cannot be had on this machine: skipped on a laptop, a failure in CI."""

import os
from typing import NoReturn

import pytest


def unavailable(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and in CI every service must be there")
    pytest.skip(what)
