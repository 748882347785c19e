"""Settings: where each value comes from, and what is said when one is wrong."""

import os
import re

import pytest
from pydantic import ValidationError

from relay.cli.api import api
from relay.cli.workers import workers
from relay.errors import ConfigError
from relay.setting_values import parse_address
from relay.settings import Settings, known_variables, option, variables
from scheduler.cli import main as scheduler
from tests.paths import ROOT

DOCS = ROOT / "docs" / "reference" / "settings.md"
URL = "postgresql://relay:pg-password@db/app"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("RELAY_", "PGTRICKLE_RELAY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RELAY_POSTGRES_URL", URL)


def test_everything_but_the_database_has_a_default():
    settings = Settings.load()
    assert settings.postgres_url == URL
    assert settings.broker_url == "redis://127.0.0.1:6379/0"
    assert (settings.metrics_addr, settings.worker_metrics_addr) == ("0.0.0.0:9090", "0.0.0.0:9191")
    assert (settings.log_format, settings.log_level) == ("text", "info")
    assert settings.relay_group_id == "default"
    assert settings.discovery_interval_seconds == 10
    assert (settings.worker_threads, settings.worker_shutdown_timeout_seconds) == (8, 30)
    assert settings.worker_processes >= 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_line_end_at_the_end_is_no_part_of_a_value(monkeypatch, end):
    for name, value in {
        "RELAY_POSTGRES_URL": URL, "RELAY_BROKER_URL": "redis://b/0", "RELAY_GROUP_ID": "g",
        "RELAY_WORKER_THREADS": "3",
        "RELAY_LOG_LEVEL": "error", "RELAY_API_ADDR": "a:1", "RELAY_SECRET_VARIABLES": "A_,B_",
        "RELAY_CONNECT_TIMEOUT": "9s",
        "RELAY_SINK_FOLDERS": "/a", "RELAY_API_AUTH_TOKENS": "t" * 16, "RELAY_AMBIENT_CREDENTIALS": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value + end)
    settings = Settings.load(worker_metrics_addr=f"b:2{end}")
    assert (settings.postgres_url, settings.broker_url, settings.relay_group_id) == (URL, "redis://b/0", "g")
    assert (settings.worker_threads, settings.log_level, settings.api_addr) == (3, "error", "a:1")
    assert (settings.secret_variables, settings.sink_folders) == (("A_", "B_"), ("/a",))
    assert (settings.api_auth_tokens, settings.ambient_credentials) == (("t" * 16,), True)
    assert (settings.connect_timeout_seconds, settings.worker_metrics_addr) == (9, "b:2")


def test_a_variable_that_is_nothing_but_a_line_end_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("RELAY_GROUP_ID", "\n")
    monkeypatch.setenv("RELAY_BROKER_URL", "\r\n")
    monkeypatch.setenv("RELAY_WORKER_THREADS", "\n")
    settings = Settings.load()
    assert (settings.relay_group_id, settings.worker_threads) == ("default", 8)
    assert settings.broker_url == "redis://127.0.0.1:6379/0"


def test_an_option_beats_our_variable_beats_the_old_variable_beats_the_default(monkeypatch):
    assert Settings.load().relay_group_id == "default"
    monkeypatch.setenv("PGTRICKLE_RELAY_GROUP_ID", "old")
    assert Settings.load().relay_group_id == "old"
    monkeypatch.setenv("RELAY_GROUP_ID", "ours")
    assert Settings.load().relay_group_id == "ours"
    assert Settings.load(relay_group_id="option").relay_group_id == "option"


def test_an_option_that_was_not_given_and_an_empty_variable_count_as_not_set(monkeypatch):
    monkeypatch.setenv("RELAY_LOG_LEVEL", "")
    monkeypatch.setenv("PGTRICKLE_RELAY_LOG_LEVEL", "error")
    assert Settings.load(log_level=None).log_level == "error"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_can_come_from_either_variable(field, monkeypatch):
    others = {"log_format": "json", "log_level": "debug", "secret_variables": "SHOP_", "ambient_credentials": "True",
              "job_http_hosts": "*.a.test", "job_modules": "shop.jobs"}  # fmt: skip
    suffixed = {"_addr": "127.0.0.1:1", "_folders": "/data", "_tokens": "0123456789abcdef"}
    value = others.get(field) or next((v for suffix, v in suffixed.items() if field.endswith(suffix)), "7")
    for variable in variables(field):
        with monkeypatch.context() as environment:
            environment.delenv("RELAY_POSTGRES_URL")
            if field != "postgres_url":
                environment.setenv("PGTRICKLE_RELAY_POSTGRES_URL", URL)
            environment.setenv(variable, value)
            found = getattr(Settings.load(), field)
            assert str(found[0] if isinstance(found, tuple) else found).removesuffix(".0") == value


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1m", 60), ("1h", 3600), ("2.5", 2.5), (3, 3), (0.25, 0.25), (" 5 s ", 5)],
)
def test_a_duration_says_its_unit_or_is_in_seconds(given, seconds):
    assert Settings.load(discovery_interval=given).discovery_interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["10 bananas", "-1s", "0", "", "1e3", "nan", "2d", -1, 0])
def test_a_duration_that_is_none_is_refused(given):
    with pytest.raises(ConfigError, match="--discovery-interval="):
        Settings.load(discovery_interval=given)


def test_levels_may_be_spelt_as_pgtrickle_relay_does():
    assert Settings.load(log_level="WARN").log_level == "warning"
    assert Settings.load(log_level="trace").log_level == "debug"


def test_a_wrong_value_is_named_with_its_variable_and_what_is_known(monkeypatch):
    monkeypatch.setenv("PGTRICKLE_RELAY_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError, match=r"PGTRICKLE_RELAY_LOG_FORMAT='xml'.*'text' or 'json'"):
        Settings.load()


def test_every_wrong_value_is_named_at_once(monkeypatch):
    monkeypatch.setenv("RELAY_WORKER_THREADS", "many")
    with pytest.raises(ConfigError, match=r"(?s)--metrics-addr='nowhere'.*RELAY_WORKER_THREADS='many'"):
        Settings.load(metrics_addr="nowhere")


def test_a_missing_database_says_how_to_name_it(monkeypatch):
    monkeypatch.delenv("RELAY_POSTGRES_URL")
    with pytest.raises(ConfigError, match="--postgres-url or set RELAY_POSTGRES_URL"):
        Settings.load()


def test_unknown_variables_stop_the_start_with_wrong_values_and_the_nearest_names_and_what_to_do(monkeypatch):
    monkeypatch.setenv("RELAY_BROKER", "redis://")
    monkeypatch.setenv("RELAY_SECRET_FOLDER", "/x")
    monkeypatch.setenv("RELAY_ZZZ", "1")
    monkeypatch.setenv("RELAY_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    text = str(caught.value)
    assert "RELAY_BROKER='redis://', did you mean RELAY_BROKER_URL?" in text
    assert (
        "did you mean RELAY_SECRET_FOLDERS?" in text and "RELAY_ZZZ='1';" in text and "RELAY_LOG_FORMAT='xml'" in text
    )
    assert "unset it" in text and "another prefix" in text


def test_the_value_of_an_unknown_variable_is_not_shown_when_it_may_be_a_secret(monkeypatch):
    monkeypatch.setenv("RELAY_POSTGRES_PASSWORD", "hidden-pw")
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    assert "RELAY_POSTGRES_PASSWORD" in str(caught.value)
    assert "hidden-pw" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["RELAY_SCHEDULER_SERVICE_HOST", "RELAY_PORT", "RELAY_PORT_9090_TCP_ADDR", "RELAY_SERVICE_PORT_METRICS"]
)
def test_what_kubernetes_adds_for_a_service_named_relay_is_no_setting(name, monkeypatch):
    monkeypatch.setenv(name, "tcp://10.0.0.1:9090")
    Settings.load()


def test_no_password_shows_in_the_text_of_the_settings():
    settings = Settings.load(broker_url="redis://:broker-password@broker/0")
    for text in (repr(settings), str(settings)):
        assert "pg-password" not in text and "broker-password" not in text
        assert "postgresql://relay:***@db/app" in text


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().log_level = "debug"  # type: ignore[misc]


def test_a_setting_that_does_not_exist_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="no such setting"):
        Settings.load(colour="red")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9090", ("0.0.0.0", 9090)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("", 80)),
        ("relay.local:1", ("relay.local", 1)),
    ],
)
def test_an_address_is_host_and_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["9090", "host", "host:", "host:http", "host:65536", "::1:80", "a:b:80", "[]:1"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)


def _programs_with(field: str) -> set[str]:
    programs = {"relay-scheduler": scheduler, "relay workers": workers, "relay api": api}
    return {name for name, command in programs.items() if field in {param.name for param in command.params}}


def test_the_docs_list_every_setting_with_the_option_that_programs_have_its_variable_and_default():
    cells = r"^\| (?:`(--\S+)`)? ?\|(?: (\S.*?))? \| `(RELAY_\S+)` \| (\S+) \|"
    rows = re.findall(cells, DOCS.read_text(), re.MULTILINE)
    assert sorted(variable for _, _, variable, _ in rows) == known_variables()
    shown = {variable: (given, set(re.findall("`(.*?)`", of)), of) for given, of, variable, _ in rows}
    for field in Settings.model_fields:
        having = _programs_with(field)
        given, of, text = shown[variables(field)[0]]
        assert given == (option(field) if having else ""), field
        assert of == having or (text == "all" and len(having) == 3), field
    defaults = {variable: default.strip("`") for _, _, variable, default in rows}
    for field, info in Settings.model_fields.items():
        if not info.is_required() and info.default_factory is None:
            given = defaults[variables(field)[0]]
            assert getattr(Settings.load(**{field: given}), field) == info.default, field
