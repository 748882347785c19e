"""Structured logs: one line for each event, for people (`text`) or for machines (`json`), on standard error.

What dependencies log through the standard library goes the same way, so that every line is masked.
"""

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, NoReturn, TextIO

import structlog
from structlog.typing import EventDict, Processor

from relay.masking import MOST_CHARACTERS, mask
from relay.printable import printable, printable_lines
from relay.settings import Settings, variables

# Below a warning they report only internals.
CHATTY = ("asyncio", "librdkafka", "nats", "pika", "urllib3")

TRACEBACKS = frozenset({"exception", "stack"})
"""Values over several lines."""
_LONGEST_TRACEBACK = 32_768
_MOST_VALUES, _DEEPEST, _MOST_BITS = 100, 5, 4096

log = structlog.get_logger(__name__)


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Sets up structlog and the standard library's root logger. May be called again.

    In a Dramatiq worker, call it when the module of the workers is imported: Dramatiq has then put a pipe to its master
    in the place of standard error, and its own handler on the root logger, which this replaces. `stream`: not standard
    error.
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
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings.log_format))
    _replace_handler(handler)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    _show_warnings()
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _uncaught_in_thread
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
        renderer = structlog.processors.JSONRenderer(serializer=_json_line)
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
            *([] if log_format == "json" else [_for_a_terminal]),
            renderer,
        ],
    )


def _json_line(event: EventDict, **_options: Any) -> str:
    return json.dumps(event, default=str).replace("\x7f", "\\u007f")


def _for_a_terminal(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {printable(key): _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    """The renderer quotes values with line breaks, but not the event; a traceback must not look like other lines."""
    match value:
        case str() if key in TRACEBACKS:
            return printable_lines(value).replace("\n", "\n  ")
        case str():
            return printable(value) if key == "event" else printable_lines(value)
        case dict():
            return {printable(name): _shown("", inner) for name, inner in value.items()}
        case list():
            return [_shown("", inner) for inner in value]
        case _:
            return value


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        log.critical("ended by an unexpected error", exc_info=(kind, error, traceback))


def _unraisable(details: "sys.UnraisableHookArgs") -> None:
    """Of a finalizer or a callback: Python would print it as text."""
    exception = (details.exc_type, details.exc_value or details.exc_type(), details.exc_traceback)
    log.error(details.err_msg or "an exception that could not be raised", exc_info=exception)


def _show_warnings() -> None:
    """Warnings of Python as lines of the log, in one line: what was said, and where."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        if file is not None:
            _written(message, category, filename, lineno, file, line)
        else:
            log.warning(str(message), category=category.__name__, where=f"{filename}:{lineno}")

    warnings.showwarning = show


_written = warnings.showwarning


def cannot_start(program: str, text: str, log_format: str | None = None) -> NoReturn:
    """Ends a program with one line on standard error and exit code 1, in the format of its log.

    Also before its settings are known: then the environment tells the format.
    """
    given = (os.environ.get(name) for name in variables("log_format"))
    chosen = log_format or next((value for value in given if value), "text")
    if chosen.strip().lower() != "json":
        sys.exit(printable(f"{program}: {text}"))
    event = {"event": "cannot start", "level": "critical", "logger": program, "reason": mask(text)}
    sys.exit(_json_line(event | {"timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z")}))


def _uncaught_in_thread(details: threading.ExceptHookArgs) -> None:
    if details.exc_type is not SystemExit:
        log.critical("a thread ended by an unexpected error", exc_info=details[:3])


def _replace_handler(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        # Only plain stream handlers, which are ours or Dramatiq's: others (a test's, an application's) stay.
        if type(old) is logging.StreamHandler:
            root.removeHandler(old)
    root.addHandler(handler)


def masked(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A processor that masks and bounds every string of an event, and every object by its text."""
    return {key: _mask(value, key in TRACEBACKS) for key, value in event.items()}


def _mask(value: Any, is_traceback: bool = False, depth: int = 0) -> Any:
    match value:
        case str():
            return mask(value, most_characters=_LONGEST_TRACEBACK if is_traceback else MOST_CHARACTERS)
        case None | float() | int() if not isinstance(value, int) or value.bit_length() <= _MOST_BITS:
            return value
        case Mapping() if depth < _DEEPEST:
            return {mask(str(key)): _mask(inner, depth=depth + 1) for key, inner in islice(value.items(), _MOST_VALUES)}
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            return [_mask(inner, depth=depth + 1) for inner in islice(value, _MOST_VALUES)]
        case int() | Mapping() | list() | tuple() | set() | frozenset():
            return f"({type(value).__name__} too large for a log)"
        case _:
            return mask(str(value))
