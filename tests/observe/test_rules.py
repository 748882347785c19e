"""When the alerts fire and when they do not: series made by hand, judged by promtool, which knows the time of `for`."""

import json

import pytest

from tests.observe.prometheus import promtool
from tests.observe.rules import RULES

ORDERS = 'pipeline="orders",direction="forward",sink_type="nats"'
COMMANDS = 'pipeline="commands",direction="reverse",sink_type="redis"'
KEPT = "alertname, pipeline, queue, inbox, outbox, consumer_group, relay_group_id, way, stream_table"
SHOWN = f"sum by ({KEPT}) (ALERTS{{alertstate='firing'}})"
# A fleet that does nothing, and is well.
WELL = {
    'tide_relay_pipelines_owned{pod="s1"}': "1x200",
    'tide_relay_pipelines_unowned{pod="s1"}': "0x200",
    'tide_relay_loop_age_seconds{pod="s1"}': "0.5x200",
    'tide_relay_broker_up{pod="s1"}': "1x200",
    'tide_relay_drains_running{pod="w1"}': "0x200",
}


def lag(labels: str, pod: str = "s1") -> str:
    return f'tide_relay_lag_seconds{{pod="{pod}",{labels}}}'


def counted(metric: str, labels: str, pod: str = "w1") -> str:
    return f'tide_relay_{metric}_total{{pod="{pod}",{labels}}}'


def wanted(alert: str) -> dict[str, object]:
    """A sample of `SHOWN`: `NoOwner` or `NoOwner{relay_group_id="eu"}`."""
    name, _, labels = alert.removesuffix("}").partition("{")
    return {"labels": f'{{alertname="{name}"{", " if labels else ""}{labels}}}', "value": 1}


@pytest.fixture
def firing(tmp_path):
    """Asserts which alerts fire at a moment, of these series beside those of a fleet that is well.

    Two values a minute; an empty text takes a series of the fleet away.
    """

    def judge(at: str, series: dict[str, str], *expected: str) -> None:
        given = [{"series": name, "values": values} for name, values in (WELL | series).items() if values]
        asked = {"expr": SHOWN, "eval_time": at, "exp_samples": list(map(wanted, expected))}
        test = {"interval": "30s", "input_series": given, "promql_expr_test": [asked]}
        path = tmp_path / "test.json"
        path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}))
        content, said = promtool("test", "rules", path)
        assert content, said

    return judge


def test_promtool_accepts_the_rules():
    content, said = promtool("check", "rules", RULES)
    assert content and "20 rules found" in said, said


def test_a_fleet_that_is_well_raises_none(firing):
    firing("90m", {})


# Lag --------------------------------------------------------------------------------------------------------------


def moving(pod: str = "w1") -> dict[str, str]:
    return {counted("messages_published", ORDERS, pod): "0+10x200"}


def test_lag_counts_once_it_has_lasted(firing):
    firing("4m", moving() | {lag(ORDERS): "400x20"})
    firing("6m", moving() | {lag(ORDERS): "400x20"}, 'TideRelayLagging{pipeline="orders"}')
    firing("6m", moving() | {lag(ORDERS): "290x20"})


def test_a_pipeline_that_goes_to_another_scheduler_keeps_its_time(firing):
    series = {lag(ORDERS): "400x5 stale", lag(ORDERS, "s2"): "_x8 400x20"}
    firing("6m", moving() | series, 'TideRelayLagging{pipeline="orders"}')


def test_lag_that_another_scheduler_mended_is_gone_with_the_old_series(firing):
    firing("16m", moving() | {lag(ORDERS): "400x15 stale", lag(ORDERS, "s2"): "_x15 0x40"})


# Not moving -------------------------------------------------------------------------------------------------------


def test_lag_without_any_delivery_is_not_moving(firing):
    firing("6m", {lag(ORDERS): "130+30x20"}, 'TideRelayNotMoving{pipeline="orders"}')
    stopped = {counted("messages_published", ORDERS): "0+10x10 100x40"}
    firing("20m", stopped | {lag(ORDERS): "200x60"}, 'TideRelayNotMoving{pipeline="orders"}')


def test_a_backlog_that_is_worked_off_moves_whichever_worker_does_it(firing):
    firing("20m", {lag(ORDERS): "200x60"} | moving())
    firing("20m", {lag(ORDERS): "200x60", counted("messages_published", ORDERS): "0+9x20 0+9x40"})
    taken_over = {counted("messages_published", ORDERS): "0+9x20 stale"} | {
        counted("messages_published", ORDERS, "w2"): "_x20 0+9x40"
    }
    firing("20m", {lag(ORDERS): "200x60"} | taken_over)


def test_refusing_everything_is_moving(firing):
    refused = {counted("dead_letters", ORDERS): "0+10x60"}
    firing("20m", {lag(ORDERS): "200x60"} | refused, 'TideRelayDeadLetters{pipeline="orders"}')


def test_a_reverse_pipeline_of_which_every_drain_fails_does_not_move(firing):
    failed = {counted("drains", COMMANDS + ',outcome="failed"'): "0+1x60"}
    firing("10m", failed, 'TideRelayNotMoving{pipeline="commands"}')
    firing("10m", failed | {counted("drains", COMMANDS + ',outcome="idle"'): "0+1x60"})


def test_drains_that_no_worker_takes_do_not_move(firing):
    waiting = {'tide_relay_drains_waiting{pod="s1",queue="tide.reverse"}': "1x60"}
    firing("6m", waiting, 'TideRelayNotMoving{queue="tide.reverse"}')
    firing("6m", waiting | {counted("drains", COMMANDS + ',outcome="idle"'): "0+1x60"})
    refreshes = 'pipeline="streams.public.totals",direction="stream",sink_type="stream",outcome="idle"'
    waiting_for_refreshes = {'tide_relay_drains_waiting{pod="s1",queue="tide.streams"}': "1x60"}
    firing("6m", waiting_for_refreshes, 'TideRelayNotMoving{queue="tide.streams"}')
    firing("6m", waiting_for_refreshes | {counted("drains", refreshes): "0+1x60"})
    forward = {counted("drains", ORDERS + ',outcome="idle"'): "0+1x60"}
    firing("6m", waiting | forward, 'TideRelayNotMoving{queue="tide.reverse"}')


# Events -----------------------------------------------------------------------------------------------------------

EVENTS = {
    'TideRelayDeadLetters{pipeline="orders"}': ("dead_letters", ORDERS),
    'TideRelayFenced{pipeline="orders"}': ("drains", ORDERS + ',outcome="fenced"'),
    'TideRelayMessagesLost{outbox="orders"}': ("retention_lost", 'outbox="orders"'),
}


@pytest.mark.parametrize("alert", EVENTS)
def test_the_first_event_counts_though_its_series_is_new(firing, alert):
    series = counted(*EVENTS[alert])
    firing("11m", {series: "_x20 1x200"}, alert)
    firing("9m", {series: "_x20 1x200"})


@pytest.mark.parametrize("alert", EVENTS)
def test_an_event_of_long_ago_is_over_also_when_a_scrape_was_missed(firing, alert):
    series = counted(*EVENTS[alert])
    firing("90m", {series: "_x20 1x200"})
    for gap in ("28m", "88m"):  # 15 minutes, or an hour, after the missed one
        minutes = int(gap[:-1])
        missed = (minutes - (60 if "Lost" in alert else 15)) * 2
        if missed > 0:
            firing(gap, {series: f"5x{missed - 1} stale 5x200"})


@pytest.mark.parametrize("alert", EVENTS)
def test_a_worker_that_starts_anew_is_no_event(firing, alert):
    firing("30m", {counted(*EVENTS[alert]): "7x20 0x200"})


@pytest.mark.parametrize("alert", EVENTS)
def test_an_event_after_many_counts(firing, alert):
    firing("80m", {counted(*EVENTS[alert]): "7x155 8x100"}, alert)


# State ------------------------------------------------------------------------------------------------------------


def test_an_invalid_configuration_counts_once_though_each_scheduler_sees_it(firing):
    seen = {f'tide_relay_pipelines_invalid{{pod="{pod}"}}': "1x20" for pod in ("s1", "s2")}
    firing("3m", seen, "TideRelayInvalidConfiguration")


def test_a_broken_pipeline_keeps_its_time_whichever_scheduler_owns_it(firing):
    broken = {f'tide_relay_pipeline_broken{{pod="{pod}",{ORDERS}}}': values for pod, values in
              (("s1", "0 0 1 1 1 stale"), ("s2", "_x6 1x20"))}  # fmt: skip
    firing("4m", broken, 'TideRelayBroken{pipeline="orders"}')
    firing("2m", broken)
    firing("8m", {f'tide_relay_pipeline_broken{{pod="s1",{ORDERS}}}': "0 1 1 0x20"})


def test_pipelines_that_nobody_owns_are_told_by_group_and_not_during_a_takeover(firing):
    unowned = 'tide_relay_pipelines_unowned{pod="s1",relay_group_id="eu"}'
    firing("3m", {unowned: "2x20"}, 'TideRelayNoOwner{relay_group_id="eu"}')
    firing("3m", {unowned: "0 0 0 2 0 0 0 0 0 0"})


def test_no_scheduler_is_no_owner(firing):
    none = {name: "" for name in WELL if 'pod="s1"' in name}
    firing("3m", none, "TideRelayNoOwner")
    firing("3m", dict.fromkeys(WELL, ""), "TideRelayNoOwner")


def test_no_scheduler_in_one_of_two_namespaces_is_no_owner(firing):
    firing("3m", {'tide_relay_drains_running{pod="w9",namespace="other"}': "0x20"}, "TideRelayNoOwner")


def test_one_of_two_schedulers_without_postgresql_leaves_owners(firing):
    second = {'tide_relay_loop_age_seconds{pod="s2"}': "0+30x20"}
    firing("5m", second)
    firing("5m", second | {'tide_relay_loop_age_seconds{pod="s1"}': "0+30x20"}, "TideRelayNoOwner")


def test_one_scheduler_that_cannot_reach_the_queue_is_enough(firing):
    firing("3m", {'tide_relay_broker_up{pod="s2"}': "0x20"}, "TideRelayQueueUnreachable")
    firing("3m", {'tide_relay_broker_up{pod="s2"}': "1 1 1 0 1 1 1 1"})


def test_retention_is_behind_when_no_scheduler_has_heard_of_a_turn(firing):
    first, second = (f'tide_relay_maintenance_age_seconds{{pod="{pod}"}}' for pod in ("s1", "s2"))
    firing("80m", {first: "0+30x200", second: "20x200"})
    firing("80m", {first: "0+30x200", second: "0+30x200"}, "TideRelayRetentionBehind")


def test_a_hold_that_ends_within_a_day_is_told(firing):
    hold = 'tide_relay_hold_seconds_left{pod="s1",outbox="orders",consumer_group="billing"}'
    told = 'TideRelayHoldEnding{outbox="orders",consumer_group="billing"}'
    firing("6m", {hold: "90000x20"})
    firing("6m", {hold: "80000x20"}, told)


def test_dead_messages_of_an_inbox_count_when_they_are_new(firing):
    first, second = (f'tide_relay_inbox_dead_messages{{pod="{pod}",inbox="payments"}}' for pod in ("s1", "s2"))
    firing("30m", {first: "3x200", second: "3x200"})
    firing("5m", {first: "0x4 2x200", second: "0x200"}, 'TideRelayInboxDead{inbox="payments"}')
    firing("30m", {first: "0x4 2x200", second: "0x6 2x200"})
    firing("30m", {first: "5x50 0x200"})


# Stream tables ----------------------------------------------------------------------------------------------------

TOTALS = 'stream_table="public.totals"'
FALLBACK = f"TideRelayStreamFallback{{{TOTALS}}}"


def test_a_stream_table_is_stale_once_it_has_lasted_whichever_scheduler_says_so(firing):
    first, second = (f'tide_stream_overdue_seconds{{pod="{pod}",{TOTALS}}}' for pod in ("s1", "s2"))
    told = f"TideRelayStreamStale{{{TOTALS}}}"
    firing("4m", {first: "400x20"})
    firing("6m", {first: "400x5 stale", second: "_x8 400x20"}, told)
    firing("6m", {first: "290x20", second: "290x20"})


def test_a_stream_table_whose_refresh_is_refused_is_told(firing):
    failures = f'tide_stream_failures{{pod="s1",{TOTALS}}}'
    firing("3m", {failures: "0 1 2 3x20"}, f"TideRelayStreamFailing{{{TOTALS}}}")
    firing("3m", {failures: "0 1 0x20"})


def test_a_refresh_that_could_not_follow_is_told_and_no_other_that_computed_everything(firing):
    failed, cost = (f'tide_stream_fallbacks_total{{pod="w1",{TOTALS},reason="{why}"}}' for why in ("failed", "cost"))
    firing("11m", {failed: "_x20 1x200"}, FALLBACK)
    firing("40m", {failed: "_x20 1x200"})
    firing("11m", {cost: "_x20 1x200"})


# Jobs -------------------------------------------------------------------------------------------------------------

MAIL = 'queue="mail"'
LATE, NOT_SERVED, DEAD = (f"TideRelayJobs{what}{{{MAIL}}}" for what in ("Late", "NotServed", "Dead"))
CLAIMS = {f'tide_jobs_claimed_total{{pod="w1",{MAIL}}}': "0+5x200"}


def oldest(pod: str = "s1") -> str:
    return f'tide_job_oldest_seconds{{pod="{pod}",{MAIL}}}'


def jobs(state: str, pod: str = "s1") -> str:
    return f'tide_jobs_open{{pod="{pod}",{MAIL},state="{state}"}}'


def test_jobs_are_late_once_it_has_lasted_also_when_the_queue_changes_its_owner(firing):
    firing("4m", CLAIMS | {oldest(): "400x20"})
    firing("6m", CLAIMS | {oldest(): "400x20"}, LATE)
    firing("6m", CLAIMS | {oldest(): "290x20"})
    firing("6m", CLAIMS | {oldest(): "400x5 stale", oldest("s2"): "_x9 400x20"}, LATE)


def test_a_queue_is_not_served_while_jobs_are_due_and_none_is_claimed_or_runs(firing):
    firing("6m", {oldest(): "130+3x40"}, NOT_SERVED)
    firing("6m", {oldest(): "130+3x40"} | CLAIMS)
    firing("6m", {oldest(): "130+3x40", jobs("leased"): "1x40"})
    ended = {f'tide_jobs_claimed_total{{pod="w1",{MAIL}}}': "0+5x10 50x40", jobs("leased"): "1x10 0x40"}
    firing("18m", {oldest(): "150x60"} | ended, NOT_SERVED)


def test_dead_jobs_are_told_when_they_become_more_and_for_a_while(firing):
    firing("9m", {jobs("dead"): "7x20 8x100"})
    firing("11m", {jobs("dead"): "7x20 8x100"}, DEAD)
    firing("20m", {jobs("dead"): "7x20 8x100"}, DEAD)
    firing("30m", {jobs("dead"): "7x20 8x100"})
    firing("11m", {jobs("dead"): "7x20 3x100"})  # removed
    firing("11m", {jobs("dead"): "7x15 stale", jobs("dead", "s2"): "_x18 7x100"})  # another scheduler counts the same


def test_slots_are_exhausted_when_none_is_free_anywhere_and_jobs_wait(firing):
    first, second = (f'tide_job_slots{{pod="{pod}",way="thread",state="free"}}' for pod in ("w1", "w2"))
    told = 'TideRelayJobSlotsExhausted{way="thread"}'
    firing("6m", CLAIMS | {first: "0x20", oldest(): "70x20"}, told)
    firing("6m", CLAIMS | {first: "0x20", oldest(): "50x20"})
    firing("6m", CLAIMS | {first: "0x20", second: "1x20", oldest(): "70x20"})
    firing("6m", CLAIMS | {first: "0x20", second: "0x20", oldest(): "70x20"}, told)


def test_jobs_without_a_handler_are_told_unless_a_deployment_brings_it(firing):
    unknown = f'tide_jobs_unknown_total{{pod="w1",{MAIL}}}'
    firing("9m", {unknown: "0+1x60"})
    firing("15m", {unknown: "0+1x60"}, f"TideRelayJobsUnknown{{{MAIL}}}")
    firing("16m", {unknown: "0+1x4 4x60"})
