"""`relay pipeline`: setting, listing and checking, with every secret masked."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.operations import libraries
from tests.cli.command import invoke
from tests.services.postgres import Database

NATS = {"sink_type": "nats", "url": "nats://u:hidden-password@localhost:4222", "stream": "s", "password": "another-one",
        "user": "u"}  # fmt: skip


@pytest.fixture
def url(database: Database) -> str:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
    return database.url


def put(url: str, config: dict[str, Any], *more: str, name: str = "p") -> Any:
    return invoke("pipeline", "set", name, "orders", "--config", json.dumps(config), *more, url=url)


def shown(url: str, name: str = "p") -> Any:
    return json.loads(invoke("pipeline", "show", name, url=url).stdout)


def test_one_is_set_shown_listed_and_changed(url: str) -> None:
    assert put(url, {"sink_type": "file", "path": "/tmp/x"}).exit_code == 0
    found = shown(url)
    assert (found["outbox"], found["consumer_group"], found["state"]) == ("orders", "p", "enabled")
    assert put(url, {"sink_type": "file", "path": "/tmp/y"}).exit_code == 0
    assert shown(url)["config"] == {"sink_type": "file", "path": "/tmp/y"}
    [listed] = json.loads(invoke("pipeline", "list", "--json", url=url).stdout)
    assert listed == shown(url)
    assert "p         orders  file  p      enabled" in invoke("pipeline", "list", url=url).stdout


def test_one_is_created_stopped_and_a_change_leaves_it_so_until_it_is_enabled(url: str) -> None:
    config = {"sink_type": "file", "path": "/tmp/x"}
    made = put(url, config, "--disabled")
    assert (made.exit_code, "start it: relay pipeline enable p" in made.stderr) == (0, True)
    assert shown(url)["state"] == "disabled"
    assert put(url, config | {"path": "/tmp/y"}).exit_code == 0
    assert shown(url)["state"] == "disabled"
    assert put(url, config, "--enabled", "--dry-run").exit_code == 0
    assert shown(url)["state"] == "disabled"
    assert put(url, config, "--enabled").exit_code == 0
    assert put(url, config).exit_code == 0
    assert shown(url)["state"] == "enabled"
    assert put(url, {"sink_type": "file"}, "--disabled").exit_code == 1
    assert shown(url)["state"] == "enabled"


def test_the_configuration_comes_from_a_file_or_standard_input(url: str, tmp_path: Path) -> None:
    config = {"sink_type": "file", "path": "/tmp/x"}
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config))
    assert invoke("pipeline", "set", "a", "orders", "--config", f"@{file}", url=url).exit_code == 0
    given = invoke("pipeline", "set", "b", "orders", "--config", "-", url=url, stdin=json.dumps(config))
    assert given.exit_code == 0
    assert shown(url, "a")["config"] == shown(url, "b")["config"] == config


def test_a_wrong_configuration_names_every_key_and_changes_nothing(url: str) -> None:
    refused = put(url, {"sink_type": "file", "pth": "/tmp/x", "batch_size": 0})
    assert refused.exit_code == 1
    assert "pth: unknown key, did you mean path" in refused.stderr and "batch_size" in refused.stderr
    assert json.loads(invoke("pipeline", "list", "--json", url=url).stdout) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not JSON"), ("[]", "must be a JSON object"), ("{}", "sink_type"),
     ('{"sink_type": "fax"}', "unknown sink_type"),
     ("@nowhere.json", "nowhere.json cannot be read")],
)  # fmt: skip
def test_what_is_no_configuration_is_refused(url: str, text: str, reason: str) -> None:
    refused = invoke("pipeline", "set", "p", "orders", "--config", text, url=url)
    assert refused.exit_code == 1
    assert reason in refused.stderr and "Traceback" not in refused.output


def test_a_library_that_is_missing_here_is_refused_unless_the_workers_have_it(url: str, monkeypatch: Any) -> None:
    absent = ("nats-py", "confluent-kafka", "redis")
    monkeypatch.setattr(libraries, "_is_installed", lambda name: name not in absent)
    refused = put(url, NATS)
    assert refused.exit_code == 1
    for word in ("pipeline p was not set", "nats-py", "pip install 'tide-relay[nats]'", "--library-on-workers"):
        assert word in refused.stderr
    assert put(url, NATS, "--library-on-workers").exit_code == 0
    assert "nats-py" in invoke("pipeline", "validate", url=url).stdout
    assert invoke("pipeline", "validate", "--library-on-workers", url=url).exit_code == 0
    assert put(url, {"sink_type": "object_storage", "path": "/x"}, name="folder").exit_code == 0
    queue = ("jobs", "queue", "create", "mail", "--config", '{"celery_url": "redis://h/0"}')
    assert "tide-relay[redis]" in invoke(*queue, url=url).stderr
    assert invoke(*queue, "--library-on-workers", url=url).exit_code == 0


def test_a_wrong_configuration_of_a_queue_of_jobs_is_refused_when_it_is_set(url: str) -> None:
    refused = invoke("jobs", "queue", "create", "mail", "--config", '{"celery_ulr": "${X}", "http": {"retryon": 1}}',
                     url=url)  # fmt: skip
    assert refused.exit_code == 1 and "did you mean celery_url?" in refused.stderr
    assert "celery_ulr: '${' is not a reference" in refused.stderr and "did you mean http.retry_on?" in refused.stderr
    assert invoke("jobs", "queue", "show", "mail", url=url).exit_code == 1


def test_an_unknown_outbox_is_refused_with_the_words_of_the_database(url: str) -> None:
    refused = invoke("pipeline", "set", "p", "nowhere", "--config", '{"sink_type": "stdout"}', url=url)
    assert refused.exit_code == 1
    assert refused.stderr.startswith('relay pipeline set: outbox "nowhere" does not exist. Create it: ')


def test_secrets_are_masked_and_warned_of(url: str) -> None:
    told = put(url, NATS)
    assert "secret in plain text" in told.stderr
    for verb in (["pipeline", "list", "--json"], ["pipeline", "list"], ["pipeline", "show", "p"], ["status", "--json"]):
        output = invoke(*verb, url=url).output
        assert "hidden-password" not in output and "another-one" not in output
    assert put(url, {**NATS, "url": "nats://h:4222", "password": "${env:NATS_PASSWORD}"}).stderr == ""
    assert shown(url)["config"]["password"] == "${env:NATS_PASSWORD}"


def test_a_change_without_a_group_keeps_group_and_offset(url: str, database: Database) -> None:
    assert put(url, {"sink_type": "stdout"}, "--group", "billing").exit_code == 0
    with database.connect() as connection:
        connection.execute("update tide.consumer_group set offset_id = 7")
        assert put(url, {"sink_type": "stdout", "batch_size": 5}).exit_code == 0
        assert connection.execute("select name, offset_id from tide.consumer_group").fetchall() == [("billing", 7)]


def test_disable_and_enable(url: str) -> None:
    put(url, {"sink_type": "stdout"})
    assert invoke("pipeline", "disable", "p", url=url).stdout == "pipeline p is disabled\n"
    assert shown(url)["state"] == "disabled"
    assert invoke("pipeline", "enable", "p", url=url).exit_code == 0
    assert shown(url)["state"] == "enabled"


@pytest.mark.parametrize("verb", ["show", "enable", "disable", "delete", "validate"])
def test_one_that_is_not_there_is_an_error(url: str, verb: str) -> None:
    result = invoke("pipeline", verb, "p", *(["--yes"] if verb == "delete" else []), url=url)
    assert result.exit_code == 1
    assert "does not exist" in result.stderr


def test_delete_asks_or_needs_yes(url: str) -> None:
    put(url, {"sink_type": "stdout"})
    refused = invoke("pipeline", "delete", "p", url=url)
    assert (refused.exit_code, "give --yes" in refused.stderr) == (1, True)
    assert invoke("pipeline", "delete", "p", "--yes", url=url).exit_code == 0
    assert json.loads(invoke("pipeline", "list", "--json", url=url).stdout) == []


def test_validate_judges_those_of_the_database(url: str, database: Database) -> None:
    put(url, {"sink_type": "stdout"}, name="good")
    assert invoke("pipeline", "validate", url=url).exit_code == 0
    with database.connect() as connection:
        connection.execute("""select tide.relay_set_outbox('bad', 'orders', '{"sink_type": "stdout", "colour": 1}')""")
    result = invoke("pipeline", "validate", "--json", url=url)
    assert result.exit_code == 1
    [bad, good] = json.loads(result.stdout)
    assert (bad["name"], bad["valid"], good) == ("bad", False, {"name": "good", "valid": True, "reason": None})
    assert "colour: unknown key" in bad["reason"]
    assert invoke("pipeline", "validate", "good", url=url).exit_code == 0


def test_validate_judges_files_without_a_database(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"sink_type": "stdout"}')
    bad.write_text('{"sink_type": "stdout", "batch_size": "many"}')
    assert invoke("pipeline", "validate", "--file", good).exit_code == 0
    result = invoke("pipeline", "validate", "--file", good, "--file", bad)
    assert result.exit_code == 1
    assert f"{good}: valid" in result.stdout and f"{bad}: invalid: batch_size" in result.stdout


def test_a_reverse_one_is_told_by_its_source_and_made_into_an_inbox(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select tide.inbox_create('commands')")
    config = json.dumps({"source_type": "file", "path": "/tmp/commands.jsonl"})
    made = invoke("pipeline", "set", "in", "commands", "--config", config, url=url)
    assert (made.exit_code, made.stdout) == (0, "pipeline in is set, into inbox commands\n")
    found = shown(url, "in")
    assert (found["direction"], found["inbox"], found["outbox"], found["state"]) == (
        "reverse", "commands", None, "enabled",
    )  # fmt: skip
    assert "in        file  commands         enabled" in invoke("pipeline", "list", url=url).stdout
    assert "in: valid" in invoke("pipeline", "validate", url=url).stdout
    status = json.loads(invoke("status", "--json", url=url).stdout)
    assert [(s["name"], s["source_type"], s["inbox"], s["offset_id"]) for s in status if s["name"] == "in"] == [
        ("in", "file", "commands", None)
    ]
    assert invoke("status", url=url).exit_code == 0


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ({"source_type": "file", "sink_type": "file"}, (), "a pipeline has one direction"),
        ({}, (), "sink_type, source_type: name one"),
        ({"source_type": "fil"}, (), "unknown source_type 'fil', did you mean file?; known: "),
        ({"source_type": "file", "path": "/x", "pth": 1}, (), "pth: unknown key, did you mean path"),
        ({"source_type": "file", "path": "/x"}, ("--group", "g"), "a reverse one has no consumer group"),
    ],
)
def test_a_wrong_reverse_one_changes_nothing(
    url: str, config: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    refused = invoke("pipeline", "set", "in", "commands", "--config", json.dumps(config), *arguments, url=url)
    assert refused.exit_code in (1, 2)
    assert said in " ".join(refused.stderr.split())
