"""What holds for each run of the tests: nothing is judged by its time, and `-m "not service"` starts no server."""

import pytest
from hypothesis import HealthCheck, settings

from tests.conftest import refuse_unmarked


def test_no_property_is_judged_by_its_time() -> None:
    now = settings()
    assert now.deadline is None
    assert HealthCheck.too_slow in now.suppress_health_check


def test_a_server_is_refused_if_no_test_of_the_run_is_marked_as_one_that_starts_one(
    request: pytest.FixtureRequest,
) -> None:
    with pytest.raises(pytest.fail.Exception, match="run_dir"):
        refuse_unmarked([request.node])
    request.node.add_marker(pytest.mark.service)
    refuse_unmarked([request.node])
