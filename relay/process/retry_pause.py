"""The pause before a long-lived loop connects again."""

import random

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 5.0


class RetryPause:
    """Twice as long each time, until `reset` says that it worked; at random below that, so that a fleet spreads."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.at_most_seconds = FIRST_SECONDS

    def next_seconds(self) -> float:
        seconds = random.uniform(0, self.at_most_seconds)
        self.at_most_seconds = min(LONGEST_SECONDS, 2 * self.at_most_seconds)
        return seconds
