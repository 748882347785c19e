"""`relay api`: receives webhooks, and serves the admin API."""

import click

from relay.cli.base import Verb, load_settings, postgres_option
from relay.errors import ConfigError, MissingExtra, RelayError
from relay.process.logs import cannot_start, configure_logging
from relay.process.stop import Stop
from relay.setting_values import parse_address
from relay.settings import Settings, variables


@click.command(cls=Verb, short_help="Receives webhooks.")
@postgres_option
@click.option(
    "--api-addr", metavar="HOST:PORT", help=f"Where it listens; default 0.0.0.0:8080.  [{variables('api_addr')[0]}]"
)
@click.option("--host", metavar="HOST", help="Only the host of that address.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="Only the port of that address.")
@click.option(
    "--api-metrics-addr", metavar="HOST:PORT",
    help=f"Where it serves /metrics, /health and /ready; default 0.0.0.0:9292.  [{variables('api_metrics_addr')[0]}]",
)  # fmt: skip
@click.option(
    "--admin-addr", metavar="HOST:PORT",
    help=f"Where it serves the admin API, if it has tokens; default 0.0.0.0:8090.  [{variables('admin_addr')[0]}]",
)  # fmt: skip
def api(host: str | None, port: int | None, **given: str | None) -> None:
    """Receives webhooks over HTTP and writes them to inboxes: POST /hooks/PIPELINE. Serves the admin API of jobs.

    Reads from the database which pipelines receive and how their senders are authenticated; changes take effect
    automatically. Answers 200 when a message is committed. Run as many as you like behind a load balancer, which also
    terminates TLS. The admin API has an address of its own, and is served if RELAY_API_AUTH_TOKENS or
    RELAY_API_READ_ONLY_AUTH_TOKENS is set. SIGTERM or SIGINT stops it after the current requests, a second one
    immediately.

    \b
    Exit codes: 0 stopped; 1 cannot start; 2 wrong usage.

    \b
    Example:
      relay api --host 127.0.0.1 --port 8080
    """
    try:
        from relay.web.server import Api
    except ImportError as error:
        raise MissingExtra("api", "api") from error
    settings = _settings(host, port, **given)
    configure_logging(settings)
    with Stop() as stop:
        stop.on_signals()
        try:
            Api(settings, stop).run()
        except RelayError as error:
            cannot_start("relay api", str(error), settings.log_format)
        except OSError as error:
            where = f"{settings.api_addr}, {settings.api_metrics_addr} or {settings.admin_addr}"
            text = (
                f"cannot listen on {where}: {error.strerror}; choose other addresses, such as --api-addr 0.0.0.0:8081"
            )
            cannot_start("relay api", text, settings.log_format)


def _settings(host: str | None, port: int | None, **given: str | None) -> Settings:
    try:
        settings = load_settings(**given)
        if host is None and port is None:
            return settings
        own_host, own_port = parse_address(settings.api_addr)
        host, port = own_host if host is None else host, own_port if port is None else port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return load_settings(**given | {"api_addr": address})
    except ConfigError as error:
        cannot_start("relay api", str(error))
