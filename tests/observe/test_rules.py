"""When the alerts fire and when they do not: series made by hand, judged by promtool, which knows the time of `for`."""

import pytest

from tests.observe.firing import WELL
from tests.observe.prometheus import promtool
from tests.observe.rules import RULES

ORDERS = 'pipeline="orders",direction="forward",sink_type="nats"'
COMMANDS = 'pipeline="commands",direction="reverse",sink_type="redis"'


def lag(labels: str, pod: str = "s1") -> str:
    return f'tide_relay_lag_seconds{{pod="{pod}",{labels}}}'


def counted(metric: str, labels: str, pod: str = "w1") -> str:
    return f'tide_relay_{metric}_total{{pod="{pod}",{labels}}}'


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
