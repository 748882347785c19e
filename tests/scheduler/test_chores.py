"""Chores in pieces: none holds the loop, and none waits for another to end."""

import pytest

from scheduler import chores as chores_module
from scheduler.chores import Chore, Chores, pages


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, piece by piece. A turn has time for one piece only."""
    monkeypatch.setattr(chores_module, "TURN_SECONDS", 0.0)
    return []


def long(done: list[str], name: str, pieces: int) -> Chore:
    def run():
        for number in range(pieces):
            done.append(f"{name}{number}")
            yield

    return Chore(3600.0, run)


def test_a_turn_does_one_piece_of_a_long_chore_and_the_next_turn_goes_on(done):
    moves: list[None] = []
    chores = Chores([long(done, "a", 3)], lambda: moves.append(None))
    for number in range(1, 4):
        chores.turn()
        assert len(done) == number
        assert chores.next_at() == 0.0, "there is more to do"
    chores.turn()
    assert done == ["a0", "a1", "a2"] and chores.next_at() > 0
    chores.turn()
    assert len(done) == 3, "it has its time again"
    assert len(moves) == 5, "the loop says that it moves, before each piece"


def test_long_chores_take_turns_and_short_ones_do_not_wait_for_them(done):
    beat = Chore(0.0, lambda: done.append("beat"))
    chores = Chores([long(done, "a", 2), long(done, "b", 2), beat], lambda: None)
    for _ in range(4):
        chores.turn()
    assert done == ["beat", "a0", "beat", "b0", "beat", "a1", "beat", "b1"]


def test_a_turn_does_as_many_pieces_as_it_has_time_for(done, monkeypatch):
    monkeypatch.setattr(chores_module, "TURN_SECONDS", 3600.0)
    Chores([long(done, "a", 500)], lambda: None).turn()
    assert len(done) == 500


def test_what_is_hastened_while_it_runs_is_begun_once_more_when_it_has_ended(done):
    one = long(done, "a", 2)
    chores = Chores([one], lambda: None)
    chores.turn()
    one.hasten(0.0)
    for _ in range(4):
        chores.turn()
    assert done == ["a0", "a1", "a0", "a1"]
    chores.turn()
    chores.turn()
    assert done == ["a0", "a1", "a0", "a1"], "and not again after that"


def test_pages_have_everything_once():
    assert [list(page) for page in pages(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(pages([], 2)) == []
