"""The command `relay`: one file for each group of verbs. docs/cli.md lists them with their exit codes."""

from relay.cli.base import Verbs
from relay.cli.demo import demo
from relay.cli.doctor import doctor
from relay.cli.migrate import migrate
from relay.cli.pipeline import pipeline
from relay.cli.publish import publish
from relay.cli.status import status
from relay.cli.up import up
from relay.cli.workers import workers

__all__ = ["main"]

main = Verbs("relay")
for verb in (demo, up, migrate, workers, doctor, status, publish, pipeline):
    main.add_command(verb)
