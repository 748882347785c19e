"""The queues that a process holds. No services: see `workers/jobs/held.py`."""

from relay.models import Drain
from workers.jobs.held import Held
from workers.jobs.queues import Queue


def held(*names: str) -> tuple[Held, list[Queue]]:
    made = [Queue(name, number, number, f"jobs.{name}") for number, name in enumerate(names, 1)]
    queues = Held()
    for queue in made:
        queue.take(Drain(queue.pipeline, 1, 1, 5000), 0.0)
        queue.hungry = False
        queues.put(queue)
    return queues, made


def test_a_bell_without_a_name_is_for_every_queue():
    queues, (mail, pdf) = held("mail", "pdf")
    assert queues.rang("")
    assert mail.is_rung
    assert pdf.is_rung


def test_a_bell_is_for_the_queue_that_it_names():
    queues, (mail, pdf) = held("mail", "pdf")
    assert queues.rang("jobs/pdf")
    assert not queues.rang("jobs/gone")
    assert (mail.is_rung, pdf.is_rung) == (False, True)


def test_a_change_of_no_pipeline_in_particular_is_for_every_queue():
    queues, made = held("mail", "pdf")
    assert queues.changed("")
    assert [len(queue.ended) for queue in made] == [1, 1]


def test_a_queue_that_takes_the_place_of_another_goes_on_with_what_that_had_to_write():
    queues, (mail,) = held("mail")
    mail.end("more")
    queues.put(changed := Queue("mail", 1, 1, "jobs.mail"))
    assert list(queues) == [changed]
    assert changed.ended == mail.ended != []


def test_a_dropped_queue_is_held_no_more():
    queues, (mail, _) = held("mail", "pdf")
    queues.remove(mail)
    assert queues.names() == ["pdf"]
    assert not queues.rang("jobs/mail")
