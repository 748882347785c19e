"""The command `relay-scheduler`."""

from typing import Any

import click
from prometheus_client import CollectorRegistry

import relay
from relay.broker.factory import make_broker
from relay.errors import RelayError
from relay.process.logs import cannot_start, configure_logging
from relay.process.metrics.scheduler import SchedulerMetrics
from relay.process.stop import Stop
from relay.setting_values import parse_address
from relay.settings import Settings, option, variables
from scheduler.http import SchedulerHttp
from scheduler.main import Scheduler

OPTIONS = {
    "postgres_url": "Where the schema tide lives.",
    "broker_url": "The Dramatiq broker: redis://, rediss://, unix://, amqp:// or amqps://.",
    "metrics_addr": "Where /metrics, /health and /ready are served.",
    "log_format": "text or json.",
    "log_level": "debug, info, warning or error.",
    "relay_group_id": "Owns the pipelines of this group, and those of none.",
    "job_lease_seconds": "How long workers may be silent before their jobs are given to others, such as 30s.",
    "discovery_interval_seconds": "How often pipelines are read again in case a notification was lost, such as 10s.",
    "maintenance_interval_seconds": "How often what is settled and old is removed, such as 30s.",
}


def _options(command: Any) -> Any:
    for field, text in reversed(OPTIONS.items()):
        default = Settings.model_fields[field].default
        shown = "required" if field == "postgres_url" else f"default {default}"
        help_text = f"{text}  [{variables(field)[0]}; {shown}]"
        command = click.option(option(field), field, metavar="VALUE", help=help_text)(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@_options
@click.version_option(relay.__version__)
def main(**given: str | None) -> None:
    """Owns pipelines and tells the workers what to drain. Run as many as you like: they share the pipelines.

    Stops with SIGTERM or SIGINT; the second signal ends it at once. Exit codes: 0 stopped, 1 cannot run, 2 wrong usage.

    \b
    Example:
      relay-scheduler --postgres-url postgresql://relay@localhost/app --broker-url redis://localhost:6379/0
    """
    try:
        settings = Settings.load(**given)
        configure_logging(settings)
        metrics = SchedulerMetrics(CollectorRegistry())
        broker = make_broker(settings.broker_url)
        with Stop() as stop:
            stop.on_signals()
            scheduler = Scheduler(settings, broker, metrics, stop)
            http = SchedulerHttp(parse_address(settings.metrics_addr), metrics.registry, scheduler.health)
            http.start()
            try:
                scheduler.run()
            finally:
                http.stop()
                broker.close()
    except RelayError as error:
        cannot_start("relay-scheduler", str(error), given["log_format"])
    except OSError as error:
        cannot_start(
            "relay-scheduler",
            f"cannot serve {settings.metrics_addr}: {error.strerror}; choose another address: --metrics-addr",
            settings.log_format,
        )


if __name__ == "__main__":
    main()
