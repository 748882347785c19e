"""What a handler raises to say what becomes of its job. Any other exception is a failure, and is retried."""


class Retry(Exception):
    """Run the job again in `seconds`, or after its usual backoff. It counts as an attempt: the last one is dead."""

    def __init__(self, seconds: float | None = None, message: str = "") -> None:
        super().__init__(message or "the handler asked for a retry")
        self.seconds = seconds


class Snooze(Exception):
    """Run the job again in `seconds`, at least 1. It counts as no attempt."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the handler asked to run again in {seconds:g} s")
        self.seconds = seconds


class Discard(Exception):
    """Never run the job again: it is dead at once, and is kept for a replay."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "the handler discarded the job")
