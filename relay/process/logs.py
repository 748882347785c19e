"""Structured logs: one line for each event, for people (`text`) or for machines (`json`), on standard error.

What dependencies log through the standard library goes the same way, so that every line is masked.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from relay.masking import mask
from relay.settings import Settings

# Below a warning they report only internals.
CHATTY = ("asyncio", "nats", "pika", "urllib3")


def configure_logging(settings: Settings) -> None:
    """Sets up structlog and the standard library's root logger. May be called again.

    In a Dramatiq worker, call it when the module of the workers is imported: Dramatiq has then put a pipe to its master
    in the place of standard error, and its own handler on the root logger, which this replaces.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_context(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings.log_format))
    _replace_handler(handler)
    logging.getLogger().setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)


def _context() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(log_format: str) -> logging.Formatter:
    renderer: Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_context(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            masked,
            renderer,
        ],
    )


def _replace_handler(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        # Only plain stream handlers, which are ours or Dramatiq's: others (a test's, an application's) stay.
        if type(old) is logging.StreamHandler:
            root.removeHandler(old)
    root.addHandler(handler)


def masked(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A processor that masks every string of an event, however deep, and every object by its text."""
    return {key: _mask(value) for key, value in event.items()}


def _mask(value: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case None | bool() | int() | float():
            return value
        case Mapping() | MutableMapping():
            return {str(key): _mask(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_mask(inner) for inner in value]
        case _:
            return mask(str(value))
