"""`relay jobs ...`: one file for looking at jobs, one for acting on them, one for their queues."""

from relay.cli.base import Verbs

_HELP = """Enqueues jobs, shows what became of them, and what operators do to them.

A job is named by its id, a UUID: relay jobs enqueue and relay jobs list print it. States: pending (it waits), leased
(a worker has it), succeeded, dead_letter (it has failed permanently), cancelled.

\b
Example:
  relay jobs enqueue mail send_receipt '{"order_id": 42}'
  relay jobs list mail --state dead_letter
  relay jobs show 00000001-0000-8000-8000-000000000001
"""

VERBS = {
    "enqueue": "relay.cli.job_look:enqueue",
    "list": "relay.cli.job_look:list_jobs",
    "show": "relay.cli.job_look:show",
    "attempts": "relay.cli.job_look:attempts",
    "cancel": "relay.cli.job_actions:cancel",
    "replay": "relay.cli.job_actions:replay",
    "drain": "relay.cli.job_actions:drain",
    "purge": "relay.cli.job_actions:purge",
    "stats": "relay.cli.job_numbers:stats",
    "workers": "relay.cli.job_numbers:workers",
    "queue": "relay.cli.job_queue:queue",
    "schedule": "relay.cli.job_schedule:schedule",
}

jobs = Verbs("jobs", _HELP, VERBS)
