"""The source suite bites: each of these breaks the contract in one way, and the scenario named for it fails."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay.backends.memory.source import forget
from relay.backends.source import Source
from tests.backends import source_fakes as fakes
from tests.backends.memory.test_source import MemorySourceHarness
from tests.backends.source_harness import MissingSource, SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.backends.steps import Limits


class FakeHarness(MemorySourceHarness):
    def wrong_credentials(self) -> dict[str, Any]:
        return {}

    def missing_source(self) -> MissingSource:
        return MissingSource("nowhere", {}, ())


S = SourceSuite
Scenario = Callable[[SourceSuite, SourceHarness], None]

CAUGHT: list[tuple[type[Source], Scenario]] = [
    (fakes.SpoilsText, S.test_bodies_arrive_unchanged),
    (fakes.LosesEmptyBodies, S.test_bodies_arrive_unchanged),
    (fakes.DropsKeys, S.test_keys_arrive_beside_the_body),
    (fakes.DropsHeaders, S.test_headers_arrive_beside_the_body),
    (fakes.Reorders, S.test_batches_arrive_whole_and_in_order),
    (fakes.LosesOne, S.test_batches_arrive_whole_and_in_order),
    (fakes.HasNoIds, S.test_batches_arrive_whole_and_in_order),
    (fakes.HasNoNet, S.test_a_message_that_cannot_be_converted_is_a_failure_and_its_neighbours_arrive),
    (fakes.LosesWhatItCannotConvert, S.test_a_message_that_cannot_be_converted_is_a_failure_and_its_neighbours_arrive),
    (fakes.HandsOutMore, S.test_no_more_arrive_than_were_asked_for),
    (fakes.BelongsToOneThread, S.test_a_source_may_be_used_by_one_thread_after_the_other),
    (fakes.HoldsTheWholeBacklog, S.test_a_backlog_of_large_messages_does_not_fill_the_memory),
    (fakes.DoesNotWait, S.test_an_empty_source_waits_as_long_as_asked),
    (fakes.WaitsOutItsTime, S.test_what_is_there_is_not_waited_for),
    (fakes.WaitsForAFullBatch, S.test_what_is_there_is_not_waited_for),
    (fakes.WaitsOutItsTime, S.test_a_message_ends_the_wait),
    (fakes.IgnoresTheTimeLimit, S.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit),
    (fakes.DoesNotEndItsWait, S.test_closing_during_a_receive_ends_both),
    (fakes.HangsOnClose, S.test_closing_during_a_receive_ends_both),
    (fakes.AcknowledgesNothing, S.test_what_was_acknowledged_does_not_come_again),
    (fakes.IgnoresPositions, S.test_positions_count_and_not_what_was_acknowledged),
    (fakes.TakesTheFurtherOfBoth, S.test_positions_count_and_not_what_was_acknowledged),
    (fakes.RepeatsTheLast, S.test_what_was_acknowledged_does_not_come_again),
    (fakes.AcknowledgesOnReceive, S.test_what_was_not_acknowledged_comes_again_at_once_with_the_same_id),
    (fakes.HasNewIdsEachTime, S.test_what_was_not_acknowledged_comes_again_at_once_with_the_same_id),
    (fakes.LosesOnRest, S.test_after_a_rest_another_worker_receives_everything_at_once),
    (fakes.KeepsWhatItHoldsForItself, S.test_after_a_rest_another_worker_receives_everything_at_once),
    (fakes.ForgetsWhatItHeldWhenItRests, S.test_after_a_rest_it_may_go_on_by_itself),
    (fakes.HandsOutTwice, S.test_batches_may_be_received_before_earlier_ones_are_acknowledged),
    (fakes.CannotReadAhead, S.test_batches_may_be_received_before_earlier_ones_are_acknowledged),
    (fakes.RefusesASecondAcknowledgement, S.test_acknowledging_twice_or_after_a_reconnect_is_harmless),
    (fakes.HangsOnClose, S.test_closing_is_harmless_at_any_time),
    (fakes.ClosesOnlyOnce, S.test_closing_is_harmless_at_any_time),
    (fakes.ReceivesUnopened, S.test_a_source_that_is_not_open_says_so),
    (fakes.OpensOnlyOnce, S.test_a_source_opens_again_after_close_and_over_itself),
    (fakes.LeavesAThread, S.test_closing_leaves_no_thread_and_no_descriptor),
    (fakes.RaisesForeignErrors, S.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening),
    (fakes.SaysNothingOfATrouble, S.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening),
    (fakes.RaisesForeignErrors, S.test_nothing_is_lost_when_the_backend_is_restarted_in_mid_flow),
    (fakes.GoesOnBehindWhatItLostWithTheConnection, S.test_nothing_is_lost_when_the_backend_is_restarted_in_mid_flow),
    (fakes.TakesAnyCredentials, S.test_wrong_credentials_are_a_clear_error_for_a_person),
    (fakes.GivesTheFirstLaneEverything, S.test_lanes_share_the_messages_and_what_one_leaves_behind_comes_to_the_others),
    (fakes.AssumesThatItIsThere, S.test_a_missing_source_is_a_clear_error),
]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Limits, "patience_seconds", 1.0)
    monkeypatch.setattr(Limits, "moment_seconds", 0.3)
    fakes.released.clear()
    fakes.KeepsWhatItHoldsForItself._keepers.clear()
    fakes.GoesOnBehindWhatItLostWithTheConnection._seen = -1
    yield
    fakes.released.set()
    forget("contract")


@pytest.mark.parametrize(("kind", "scenario"), CAUGHT, ids=lambda value: value.__name__.removeprefix("test_"))
def test_the_suite_catches_a_source_that(kind: type[Source], scenario: Scenario) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        scenario(SourceSuite(), FakeHarness(kind))
    assert not isinstance(caught.value, pytest.skip.Exception)


def test_every_scenario_catches_somebody() -> None:
    scenarios = {name for name in dir(SourceSuite) if name.startswith("test_")}
    assert scenarios == {scenario.__name__ for _, scenario in CAUGHT}
