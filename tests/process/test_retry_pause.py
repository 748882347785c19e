from relay.process.retry_pause import FIRST_SECONDS, LONGEST_SECONDS, RetryPause


def test_pauses_grow_to_a_limit_and_are_short_again_after_success() -> None:
    pause = RetryPause()
    ceilings = []
    for _ in range(8):
        ceilings.append(pause.at_most_seconds)
        assert 0 <= pause.next_seconds() <= ceilings[-1]
    assert ceilings == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_SECONDS, LONGEST_SECONDS]
    pause.reset()
    assert pause.at_most_seconds == FIRST_SECONDS
