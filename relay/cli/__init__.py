"""The command `relay`: one file for each group of verbs. docs/reference/cli.md lists them with their exit codes."""

from relay.cli.base import Verbs

__all__ = ["main"]

# verb -> "module:command"; imported when it is used, so that no verb waits for the libraries of the others.
VERBS = {
    "demo": "relay.cli.demo:demo",
    "up": "relay.cli.up:up",
    "migrate": "relay.cli.migrate:migrate",
    "workers": "relay.cli.workers:workers",
    "api": "relay.cli.api:api",
    "doctor": "relay.cli.doctor:doctor",
    "status": "relay.cli.status:status",
    "publish": "relay.cli.publish:publish",
    "receive": "relay.cli.receive:receive",
    "jobs": "relay.cli.jobs:jobs",
    "stream": "relay.cli.stream:stream",
    "outbox": "relay.cli.outbox:outbox",
    "inbox": "relay.cli.inbox:inbox",
    "pipeline": "relay.cli.pipeline:pipeline",
    "dead-letter": "relay.cli.dead_letter:dead_letter",
    "replay": "relay.cli.replay:replay",
    "replays": "relay.cli.replay:replays",
    "history": "relay.cli.history:history",
    "restored": "relay.cli.restored:restored",
    "import": "relay.cli.import_pg_tide:imports",
}

main = Verbs("relay", lazy=VERBS)
