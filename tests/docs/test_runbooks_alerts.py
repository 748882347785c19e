"""The runbook of each alert, on a fleet with the problem: it shows as printed, is fixed, and nothing is lost."""

from collections.abc import Callable

import psycopg
import pytest
import yaml

from relay import inbox
from tests.docs.pages import ROOT
from tests.docs.runbook_fleet import OUTBOX, PARTITION, PIPELINE, Site
from tests.docs.runbooks import PARTS, PATIENCE_SECONDS, Runbook, headings
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("runbooks"), pytest.mark.timeout(600)]
HOLD_HOURS = 168


def test_each_section_has_all_its_parts() -> None:
    for heading in headings():
        if heading != "Restore from backup":
            for part in PARTS:
                assert Runbook(heading, "", "").part(part).strip(), f"{heading}: {part}"


def test_each_alert_leads_to_its_section() -> None:
    [group] = yaml.safe_load((ROOT / "deploy/helm/alerts/tide-relay.yaml").read_text())["groups"]
    for alert in group["rules"]:
        assert alert["annotations"]["runbook_url"].endswith(f"/operations/runbooks/#{alert['alert'].lower()}")
        assert alert["alert"] in headings()


def test_lagging(at: Site) -> None:
    runbook = at.runbook("TideRelayLagging")
    with psycopg.connect(at.database.url, application_name="shop") as slow:
        slow.execute("select tide.outbox_publish(%s, '{}')", [OUTBOX])
        ids = at.publish()
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
        with pytest.raises(psycopg.OperationalError):
            slow.execute("select 1")
    at.wait_delivered(ids)
    runbook.wait_over()
    at.nothing_is_lost()


def test_not_moving(at: Site) -> None:
    runbook = at.runbook("TideRelayNotMoving")
    at.workers.terminate()
    at.workers.wait_exit(PATIENCE_SECONDS)
    at.publish()
    try:
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
    finally:
        at.workers.start()
    runbook.wait_over()
    at.nothing_is_lost()


def test_dead_letters(at: Site) -> None:
    runbook = at.runbook("TideRelayDeadLetters")
    at.pipelines.control(PIPELINE, refuse=[12, 13])
    ids = at.publish()
    runbook.look()
    assert at.pipelines.dead_letters(PIPELINE) == [12, 13]
    at.pipelines.control(PIPELINE)
    runbook.fix()
    runbook.wait_over()
    at.wait_delivered(ids)
    at.nothing_is_lost()


def test_inbox_dead(at: Site) -> None:
    runbook = at.runbook("TideRelayInboxDead")
    at.pipelines.run("select tide.inbox_create('payments', max_retries => 1)")
    handled: list[str] = []
    broken = True

    def handle(_connection: object, message: inbox.InboxMessage) -> None:
        if broken:
            raise ValueError("unknown currency XXX")
        handled.append(message.event_id)

    at.pipelines.run("insert into tide.payments (event_id) select 'p' || n from generate_series(1, 12) n")
    inbox.run(at.database.url, "payments", handle, until_empty=True)
    runbook.look()
    assert not runbook.is_over()
    broken = False
    runbook.fix()
    runbook.wait_over()
    inbox.run(at.database.url, "payments", handle, until_empty=True)
    assert sorted(handled) == sorted(f"p{n}" for n in range(1, 13)), "nothing is lost"
    at.pipelines.run("select tide.inbox_drop('payments')")


def test_invalid_configuration(at: Site) -> None:
    runbook = at.runbook("TideRelayInvalidConfiguration")
    at.pipelines.run(
        """select tide.relay_set_outbox(name, 'orders', config || '{"batch_size": 0}') from tide.pipeline"""
    )
    ids = at.publish()
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    runbook.wait_over()
    at.wait_delivered(ids)
    at.nothing_is_lost()


def test_broken(at: Site) -> None:
    runbook = at.runbook("TideRelayBroken")
    at.pipelines.run(
        "select tide.relay_set_outbox(name, 'orders',"
        """       config || '{"cloudevents_source": "${env:TIDE_SECRET_REGION}"}') from tide.pipeline"""
    )
    ids = at.publish()
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    runbook.wait_over()
    at.wait_delivered(ids)
    at.nothing_is_lost()


def test_no_owner(at: Site) -> None:
    runbook = at.runbook("TideRelayNoOwner")
    at.scheduler.kill()
    at.publish()
    try:
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
    finally:
        at.scheduler.start()
    runbook.wait_over()
    at.nothing_is_lost()


def test_fenced(at: Site) -> None:
    runbook = at.runbook("TideRelayFenced")
    at.pipelines.control(PIPELINE, delay_ms=500)
    at.publish(300)
    epoch = at.pipelines.drain(PIPELINE)["epoch"]
    wait_until(lambda: at.pipelines.drain(PIPELINE)["leased"], PATIENCE_SECONDS, "a drain runs")
    at.workers.freeze()
    try:
        wait_until(
            lambda: at.pipelines.drain(PIPELINE)["epoch"] > epoch, PATIENCE_SECONDS, "the lease is given to another"
        )
    finally:
        at.workers.thaw()
    wait_until(lambda: at.workers.says("drain fenced"), PATIENCE_SECONDS, "the late one is stopped")
    runbook.look("drain fenced")
    runbook.fix()
    at.pipelines.control(PIPELINE)
    runbook.wait_over()
    [(lease,)] = at.pipelines.run("select config ->> 'visibility_timeout_ms' from tide.pipeline")
    assert lease == "60000"
    at.nothing_is_lost()


def test_queue_unreachable(at: Site) -> None:
    runbook = at.runbook("TideRelayQueueUnreachable")
    at.redis.kill()
    try:
        ids = at.publish()
        runbook.look()
        wait_until(lambda: at.scheduler.get("/ready")[0] == 503, PATIENCE_SECONDS, "the scheduler says it too")
        assert not runbook.is_over()
        runbook.fix()
    finally:
        at.redis.start()
    at.wait_delivered(ids)
    runbook.wait_over()
    at.nothing_is_lost()


@pytest.fixture
def aged(at: Site) -> Callable[[float], list[int]]:
    """Disables the pipeline, publishes, and lets so many hours go by for what it then holds."""

    def make(hours: float) -> list[int]:
        at.pipelines.run("select tide.relay_disable(%s)", PIPELINE)
        ids = at.publish()
        at.pipelines.run("select * from tide.outbox_retain(%s)", OUTBOX)
        for statement in (
            "update tide.message set created_at = created_at - %s * interval '1 hour'",
            "update tide.pipeline set updated_at = updated_at - %s * interval '1 hour'",
            "update tide.hold set since = since - %s * interval '1 hour'",
        ):
            at.pipelines.run(statement, hours)
        return ids

    return make


def test_hold_ending(at: Site, aged: Callable[[float], list[int]]) -> None:
    runbook = at.runbook("TideRelayHoldEnding")
    ids = aged(HOLD_HOURS - 1)
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    runbook.wait_over()
    at.wait_delivered(ids)
    at.nothing_is_lost()


def test_messages_lost(at: Site, aged: Callable[[float], list[int]]) -> None:
    runbook = at.runbook("TideRelayMessagesLost")
    ids = aged(HOLD_HOURS + 1)
    for _ in range(3):  # cut, emptied, dropped
        at.pipelines.run("select * from tide.outbox_retain(%s)", OUTBOX)
    runbook.look()
    assert not runbook.is_over()
    [told] = at.pipelines.run("select messages, first_id, last_id from tide.retention_loss")
    assert told == (len(ids), ids[0], ids[-1]), "what is lost is named, to the last one"
    runbook.fix()
    runbook.wait_over()
    at.deliver()
    assert not set(ids) & set(at.pipelines.delivered(PIPELINE))
    at.pipelines.run("select tide.setting_set('max_retention_hours', %s)", str(HOLD_HOURS))


def test_retention_behind(at: Site) -> None:
    runbook = at.runbook("TideRelayRetentionBehind")
    at.pipelines.run("select tide.outbox_set_retention(%s, 0)", OUTBOX)
    at.fill_partitions(2)
    with psycopg.connect(at.database.url, application_name="report") as reader:
        reader.execute("select count(*) from tide.message")
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
        with pytest.raises(psycopg.OperationalError):
            reader.execute("select 1")
    runbook.wait_over()
    assert len(at.pipelines.committed(OUTBOX)) < PARTITION, "what is settled is gone"
