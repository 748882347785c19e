"""The right to wait on a source: in turn, and never by more than there are places."""

from contextlib import ExitStack

from workers.wait_slots import FORGET_SECONDS, WaitSlots


def enter(stack: ExitStack, waiting: WaitSlots, pipeline: str) -> bool:
    return stack.enter_context(waiting.slot(pipeline))


def test_as_many_wait_as_there_are_places():
    waiting = WaitSlots(2, lambda: False)
    with ExitStack() as stack:
        assert enter(stack, waiting, "a")
        assert enter(stack, waiting, "b")
        assert not enter(stack, waiting, "c")
    with ExitStack() as stack:
        assert [enter(stack, waiting, name) for name in "cd"] == [True, True]


def test_a_place_goes_to_who_was_turned_away_first():
    waiting = WaitSlots(1, lambda: False)
    with waiting.slot("a") as given:
        assert given
        for name in ("b", "c", "b"):
            with waiting.slot(name) as also_given:
                assert not also_given
    for name, may in (("a", False), ("c", False), ("b", True), ("c", True), ("a", True), ("a", True)):
        with waiting.slot(name) as given:
            assert given is may, name


def test_whoever_waits_hears_that_others_want_the_place():
    queued = False
    waiting = WaitSlots(1, lambda: queued)
    with waiting.slot("a"):
        assert not waiting.is_contended()
        queued = True
        assert waiting.is_contended(), "a drain is queued without a thread"
        queued = False
        with waiting.slot("b"):
            pass
        assert waiting.is_contended(), "another was turned away"
    with waiting.slot("b"):
        assert not waiting.is_contended()


def test_who_does_not_come_again_is_forgotten(monkeypatch):
    now = 100.0
    monkeypatch.setattr("workers.wait_slots.time.monotonic", lambda: now)
    waiting = WaitSlots(1, lambda: False)
    with waiting.slot("a"), waiting.slot("b"):
        assert waiting.is_contended()
    now += FORGET_SECONDS + 1
    assert not waiting.is_contended()
    with waiting.slot("a") as given:
        assert given


def test_a_place_is_free_again_after_an_error():
    waiting = WaitSlots(1, lambda: False)
    try:
        with waiting.slot("a"):
            raise RuntimeError
    except RuntimeError:
        pass
    with waiting.slot("b") as given:
        assert given
