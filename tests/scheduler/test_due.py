"""The due list: one time for each name, the earliest first."""

from scheduler.due import DueList


def test_an_empty_list_is_never_due():
    due = DueList()
    assert due.next_at() is None
    assert due.pop(1e9) == []


def test_names_come_out_when_they_are_due_the_longest_overdue_first():
    due = DueList()
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        due.set(name, at)
    assert due.next_at() == 1.0
    assert due.pop(0.9) == []
    assert due.pop(2.0) == ["a", "b"]
    assert due.next_at() == 3.0


def test_a_new_time_replaces_the_old_one_whether_earlier_or_later():
    due = DueList()
    due.set("a", 5.0)
    due.set("a", 1.0)
    assert due.next_at() == 1.0
    due.set("a", 9.0)
    assert due.next_at() == 9.0
    assert due.pop(8.0) == []
    assert due.pop(9.0) == ["a"]
    assert due.pop(100.0) == []


def test_a_name_set_twice_to_the_same_time_comes_out_once():
    due = DueList()
    due.set("a", 1.0)
    due.set("a", 1.0)
    assert due.pop(1.0) == ["a"]
    assert due.next_at() is None


def test_a_removed_name_does_not_come_out():
    due = DueList()
    due.set("a", 1.0)
    due.set("b", 2.0)
    due.remove("a")
    due.remove("never there")
    assert due.next_at() == 2.0
    assert due.pop(5.0) == ["b"]


def test_times_that_are_replaced_all_the_time_do_not_pile_up():
    due = DueList()
    for round_number in range(1000):
        for name in ("a", "b"):
            due.set(name, float(round_number))
        due.pop(float(round_number))
    assert len(due._heap) < 10
