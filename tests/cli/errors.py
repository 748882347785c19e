"""What users can do wrong, and what they are told: a table of cases, which a test runs and prints for reading.

    pytest -s tests/cli/test_errors.py

A case is a command line, and a part of the sentence that tells what to do. What is the same for all is judged by
`faults_of`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from click.testing import Result

MOST_CHARACTERS = 620
JOB = "00000000-0000-0000-0000-000000000001"
NOWHERE = "postgresql://nowhere@127.0.0.1:1/none"


@dataclass(frozen=True)
class Case:
    """`{url}` in a word is the URL of the database of the test, `{dir}` its folder."""

    words: str | tuple[str, ...]
    said: str
    code: int = 1
    stdin: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        return list(self.words) if isinstance(self.words, tuple) else self.words.split()


def _set(config: str, said: str, box: str = "orders", *more: str) -> Case:
    return Case(("pipeline", "set", "p", box, "--config", config, *more), said)


def _wrong(words: str, said: str) -> Case:
    return Case(words, said, 2)


def _env(said: str, **variables: str) -> Case:
    return Case("pipeline list", said, variables=variables)


CONFIGURATIONS = [
    _set("{", "is not JSON"),
    _set("[]", "must be a JSON object"),
    _set("{}", "name one"),
    _set('{"sink_typ": "nats"}', "did you mean sink_type?"),
    _set('{"sink_type": 7}', "name the kind of sink"),
    _set('{"sink_type": "natz"}', "did you mean nats?"),
    _set('{"source_type": "kafak"}', "did you mean kafka?", "commands"),
    _set('{"sink_type": "file", "source_type": "file"}', "name one of the two"),
    _set('{"sink_type": "nats"}', "url: is missing"),
    _set('{"sink_type": "stdout", "batchsize": 1, "slice": 1}', "did you mean slice_ms?"),
    _set('{"sink_type": "stdout", "colour": 1}', "known: "),
    _set('{"sink_type": "stdout", "batch_size": "many"}', "must be a whole number"),
    _set('{"sink_type": "stdout", "batch_size": 0}', "must be 1 or more"),
    _set('{"sink_type": "stdout", "wire_format": "xml"}', "known: raw"),
    _set('{"sink_type": "stdout", "subject_template": "{colour}"}', "known: "),
    _set('{"sink_type": "stdout", "subject_template": "${NAME}"}', "write ${env:TIDE_SECRET_NAME}"),
    _set('{"sink_type": "nats", "url": "${env:A", "stream": "s"}', "is not closed"),
    _set('{"sink_type": "nats", "url": "${env:${env:B}}", "stream": "s"}', "cannot be nested"),
    _set(
        '{"sink_type": "nats", "url": "nats://h", "stream": "s", "token": "${env:RELAY_POSTGRES_URL}"}',
        "such as TIDE_SECRET_NAME",
    ),
    _set('{"sink_type": "nats", "url": "nats://h", "stream": "s", "token": "${file:key}"}', "give an absolute path"),
    _set('{"sink_type": "webhook", "url": "https://10.0.0.1/x"}', "allow_private_network"),
    _set('{"sink_type": "webhook", "url": "https://169.254.169.254/"}', "name the host of the receiver"),
    _set('{"sink_type": "webhook", "url": "http://example.com/"}', "use https://"),
    _set('{"sink_type": "webhook", "url": "example.com"}', "url"),
    _set(
        '{"sink_type": "webhook", "url": "https://e.com", "auth": {"type": "bearer", "tokn": "x"}}',
        "did you mean auth.token?",
    ),
    _set('{"sink_type": "webhook", "url": "https://e.com", "auth": {"type": "magic"}}', "'bearer', 'basic'"),
    _set(
        '{"sink_type": "sqs", "queue_url": "https://169.254.169.254/q", "region": "x"}', "name the host of the service"
    ),
    _set('{"sink_type": "sqs", "queue_url": "sqs.amazonaws.com/q"}', "begins with https://"),
    _set('{"sink_type": "file", "path": "out.jsonl"}', "must be an absolute path"),
    _set('{"sink_type": "stdout", "timeout_ms": 30000}', "must be below visibility_timeout_ms"),
    _set('{"sink_type": "stdout", "slice_ms": 600000, "visibility_timeout_ms": 100}', "ten times"),
    _set('{"sink_type": "object_storage"}', "name either bucket"),
    _set('{"source_type": "webhook"}', "signing_secret is missing", "commands"),
    _set('{"sink_type": "stdout"}', "Create it: ", "nowhere"),
    _set('{"source_type": "stdin"}', "does not exist", "nowhere"),
    _set("@{dir}/nowhere.json", "cannot be read"),
    Case("pipeline validate --file {dir}/nowhere.json", "cannot be read"),
    Case("pipeline validate unknown", "relay pipeline list"),
    Case(("jobs", "queue", "set", "mail", "--config", '{"celery_ulr": 1}'), "did you mean celery_url?"),
    Case(("jobs", "queue", "set", "mail", "--config", '{"celery_url": "http://h"}'), "must begin with"),
    Case(("jobs", "queue", "set", "mail", "--config", "[]"), "must be a JSON object"),
]
PIPELINES = [
    *(Case(f"pipeline {verb} unknown", "relay pipeline list") for verb in ("show", "enable", "disable")),
    Case("pipeline delete unknown --yes", "relay pipeline list"),
    Case("pipeline delete good", "give --yes"),
    _wrong("pipeline set good", "--config"),
    _wrong('pipeline set good --config {"sink_type":"stdout"}', "name the OUTBOX"),
    _wrong("pipeline sett good", "set"),
    _wrong("pipeline validate a --file b", "not both"),
    _wrong("pipelines list", "did you mean pipeline?"),
    _wrong("pipeline list --jsn", "--json"),
    Case("status unknown", "relay pipeline list"),
    Case("history unknown", "relay pipeline list"),
]
MESSAGES = [
    Case("publish nowhere", "--create", stdin='{"payload": 1}\n'),
    Case("publish orders", "line 1", stdin="{\n"),
    Case("publish orders", "line 2", stdin='{"payload": 1}\n{"payload": NaN}\n'),
    Case("publish orders", "line 1", stdin='{"payload": 1, "headers": []}\n'),
    _wrong("publish orders --file {dir}/nowhere", "nowhere"),
    Case("receive unknown", "relay pipeline list"),
    Case("receive good", "source_type"),
    _wrong("receive in --run " + "x" * 201, "1 to 200 characters"),
    Case("dead-letter show 99", "relay dead-letter list"),
    Case("dead-letter retry 99", "relay dead-letter list"),
    Case("dead-letter discard 99 --yes", "relay dead-letter list"),
    _wrong("dead-letter retry", "--pipeline"),
    _wrong("dead-letter discard 1 --older-than 1d", "--pipeline"),
    _wrong("dead-letter discard --pipeline good --older-than soon", "such as 90s"),
    Case("dead-letter discard --pipeline good", "give --yes"),
    Case("dead-letter list unknown", "relay pipeline list"),
    _wrong("dead-letter show x", "integer"),
    Case("replay unknown 1", "relay pipeline list"),
    Case("replay good 5 1", "Give the first and the last id"),
    Case("replay in 1", "tide.replay_inbox_messages"),
    _wrong("replay good 1 --dry-run --wait 1", "nothing to wait for"),
    Case("replays cancel 99", "relay replays list"),
    Case("restored nowhere", "does not exist"),
]
JOBS = [
    Case("jobs enqueue nowhere send", "relay jobs queue create"),
    _wrong("jobs enqueue mail send {", "write it in single quotes"),
    _wrong("jobs enqueue mail send --at soon", "2030-01-31T12:00:00Z"),
    Case(f"jobs show {JOB}", "relay jobs list"),
    Case(f"jobs cancel {JOB}", "relay jobs list"),
    Case(f"jobs replay {JOB}", "relay jobs list"),
    _wrong("jobs show x", "UUID"),
    _wrong("jobs cancel", "--queue"),
    Case("jobs queue show nowhere", "relay jobs queue create nowhere"),
    Case("jobs queue pause nowhere", "relay jobs queue create"),
    Case("jobs queue create mail", "relay jobs queue set"),
    Case("jobs queue create bad/name", "letters"),
    Case("jobs queue drop mail", "give --yes"),
    _wrong("jobs queue set mail", "such as --concurrency-limit"),
    _wrong("jobs queue set mail --rate fast", "none: no limit"),
    Case(("jobs", "schedule", "set", "s", "mail", "send", "--cron", "soon"), "fields"),
    Case(("jobs", "schedule", "set", "s", "mail", "send", "--cron", "61 * * * *"), "minute"),
    Case(
        ("jobs", "schedule", "set", "s", "mail", "send", "--cron", "1 * * * *", "--time-zone", "Mars"), "Europe/Berlin"
    ),
    Case(("jobs", "schedule", "set", "s", "nowhere", "send", "--cron", "1 * * * *"), "relay jobs queue create"),
    Case("jobs schedule delete nowhere --yes", "relay jobs schedule list"),
    Case("jobs list --before x", "cursor"),
    Case("jobs stats nowhere", "relay jobs queue create"),
    Case("import pg-tide", "--schema"),
    Case("import pgrelay", "--schema"),
]
SETTINGS = [
    _env("did you mean RELAY_LOG_LEVEL?", RELAY_LOGLEVEL="debug"),
    _env("another prefix", RELAY_ZZZ="1"),
    _env("did you mean RELAY_SECRET_FOLDERS?", RELAY_SECRET_FOLDER="/x"),
    _env("'debug', 'info'", RELAY_LOG_LEVEL="loud"),
    _env("must be 1024 or less", RELAY_WORKER_THREADS="100000"),
    _env("give a duration", RELAY_CONNECT_TIMEOUT="soon"),
    _env("give host:port", RELAY_METRICS_ADDR="9090"),
    _env("give absolute paths", RELAY_SINK_FOLDERS="out"),
    _env("choose another prefix", RELAY_SECRET_VARIABLES="RELAY_"),
    _env("16 characters", RELAY_API_AUTH_TOKENS="short"),
    Case("pipeline list --postgres-url nonsense", "RELAY_POSTGRES_URL"),
    Case(f"pipeline list --postgres-url {NOWHERE}", "check that PostgreSQL runs there"),
    Case("pipeline list --postgres-url {url}x", "does not exist; correct RELAY_POSTGRES_URL"),
    Case("workers --queues tide.forwards", "tide.forward"),
    Case("workers --jobs 1x", "names of Python modules"),
    Case("workers --worker-threads 0", "--worker-threads"),
    Case("api --api-addr nowhere", "give host:port"),
    Case("migrate --postgres-url {url}x", "does not exist; correct RELAY_POSTGRES_URL"),
    _wrong("migrate --check --print", "--check alone"),
]
CASES = [*CONFIGURATIONS, *PIPELINES, *MESSAGES, *JOBS, *SETTINGS]

# What no one who is paged should read: Python's own notation.
_PYTHON = re.compile(r"Traceback|\bNone\b|<[\w.]+ object|\w+Error\(|\[type=|Input should|\bdict\b|\bNoneType\b|\\n")
_ADVICE = re.compile(
    r"did you mean|known: |; |: (?:give|write|name|use|list)|\bmust\b|--|relay |Create |is missing|needs?\b|[Gg]ive "
    r"|such as|correct|one of|[Uu]se |Missing option|is not a valid|it changes nothing|nothing to wait for|No such file"
)


def faults_of(case: Case, result: Result) -> Iterator[str]:
    """What is wrong with what was said, besides that it may mislead: for that a person reads the list."""
    text = told(result)
    if result.exit_code != case.code:
        yield f"exit code {result.exit_code}, not {case.code}"
    if case.said not in text:
        yield f"it does not say {case.said!r}"
    if found := _PYTHON.search(text):
        yield f"{found[0]!r} is not for people"
    if len(text) > MOST_CHARACTERS:
        yield f"{len(text)} characters"
    if case.code == 1 and text.count("\n") != 1 - (not text):
        yield "not one message"
    if not _ADVICE.search(text):
        yield "it does not say what to do"


def told(result: Result) -> str:
    """The message: without the usage that stands above it, and without results."""
    text = result.stderr or result.stdout
    return text[text.find("Error: ") :] if result.exit_code == 2 else text
