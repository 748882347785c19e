"""When the alerts about jobs and stream tables fire, and when they do not: as for pipelines, in test_rules.py."""

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
