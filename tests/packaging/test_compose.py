"""compose.yaml, as the real Docker Compose reads it: valid, closed to the outside, true to the image and settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import yaml

from relay.database.migrate import migrate
from relay.local.servers import _postgres_programs
from relay.setting_values import parse_duration_seconds
from relay.settings import Settings, known_variables
from tests.observe.prometheus import promtool
from tests.packaging.dockerfile import CHECKOUT
from tests.packaging.test_image import COMMANDS
from tests.services.postgres import PostgresServer
from tests.services.unavailable import unavailable

OURS = {"migrate", "scheduler", "workers", "api"}
ONE_SHOT = {"migrate"}
MANY = {"scheduler", "workers"}
# Their images write beside their programs when they start.
WRITE_TO_THEIR_IMAGE = {"kafka", "rabbitmq"}
COMPOSE = CHECKOUT / "deploy" / "compose"


def compose() -> list[str]:
    program = Path(sys.executable).with_name("docker-compose")
    if program.exists():
        return [str(program)]
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], check=False).returncode:
        return ["docker", "compose"]
    return unavailable("no Docker Compose for this platform")


def resolve(*options: str, **environment: str) -> dict[str, Any]:
    """What Compose makes of the file. Without a project folder's `.env`, which is the developer's own."""
    command = [*compose(), "--file", str(CHECKOUT / "compose.yaml"), "--env-file", os.devnull, *options]
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    done = subprocess.run(
        [*command, "config", "--format", "json"], env=given,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Those of every profile."""
    return resolve("--profile", "*")["services"]


def test_without_a_profile_it_is_what_a_pipeline_needs() -> None:
    assert resolve()["services"].keys() == {"postgres", "redis", "migrate", "scheduler", "workers"}


@pytest.mark.parametrize(
    ("profile", "added"),
    [
        ("nats", {"nats"}),
        ("kafka", {"kafka"}),
        ("rabbitmq", {"rabbitmq"}),
        ("monitoring", {"prometheus", "grafana"}),
        ("api", {"api"}),
    ],
)
def test_a_profile_adds_its_services(profile: str, added: set[str]) -> None:
    assert resolve("--profile", profile)["services"].keys() - resolve()["services"].keys() == added


def test_every_port_is_on_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published)


def test_what_runs_more_than_once_takes_no_port_of_the_host(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("deploy", {}).get("replicas", 1) > 1} == MANY
    assert not any(services[name].get("ports") or services[name].get("container_name") for name in MANY)


def test_every_service_says_whether_it_is_well_or_ends(services: dict[str, Any]) -> None:
    unsaid = {name for name, service in services.items() if not service.get("healthcheck", {}).get("test")}
    assert unsaid == ONE_SHOT
    assert services["migrate"]["restart"] == "no"


def test_nothing_starts_before_what_it_needs(services: dict[str, Any]) -> None:
    conditions = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    migrated = {"migrate": "service_completed_successfully"}
    assert conditions["migrate"] == {"postgres": "service_healthy"}
    assert conditions["scheduler"] == conditions["workers"] == migrated | {"redis": "service_healthy"}
    assert conditions["api"] == migrated


def test_every_image_has_a_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*|tide-relay:development", service["image"]), name


def test_no_service_has_rights_that_it_does_not_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only", False) is (name not in WRITE_TO_THEIR_IMAGE), name
        assert any(folder.split(":")[0] == "/tmp" for folder in service["tmpfs"]), name
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}, name


def test_ours_run_as_the_user_of_the_image_and_write_nowhere_else(services: dict[str, Any]) -> None:
    for name in OURS:
        assert "user" not in services[name]
        assert services[name]["tmpfs"] == ["/tmp"]
        assert not services[name].get("volumes")


def test_the_commands_are_those_that_the_test_of_the_image_starts(services: dict[str, Any]) -> None:
    assert {tuple(services[name]["command"]) for name in OURS} == COMMANDS
    assert not any(services[name].get("entrypoint") for name in OURS)


def test_the_variables_of_ours_are_settings_with_values_that_they_take(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OURS:
        environment = services[name]["environment"]
        assert environment.keys() <= set(known_variables()), name
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            Settings.load()


def test_workers_have_time_to_settle_what_they_have_in_hand(services: dict[str, Any]) -> None:
    drain = parse_duration_seconds(services["workers"]["environment"]["RELAY_WORKER_SHUTDOWN_TIMEOUT"])
    assert parse_duration_seconds(services["workers"]["stop_grace_period"]) == float(str(drain)) + 15


def test_workers_run_jobs_when_asked_and_have_time_for_them() -> None:
    workers = resolve(JOB_MODULES="shop.jobs", JOB_QUEUES="hooks")["services"]["workers"]
    chosen = [workers["environment"][f"RELAY_JOB_{name}"] for name in ("MODULES", "QUEUES")]
    assert chosen == ["shop.jobs", "hooks"]
    assert resolve()["services"]["workers"]["environment"]["RELAY_JOB_MODULES"] == "none"
    grace = Settings.model_fields["job_grace_seconds"].default
    assert float(str(parse_duration_seconds(workers["stop_grace_period"]))) >= grace + 15


def test_no_secret_stands_in_the_file() -> None:
    """They lie in files of their own, which say that they are for development."""
    assert not re.search(
        r"(?i)for-development|passw(or)?d|secret|://[^/\s@]+:[^/\s@]+@", (CHECKOUT / "compose.yaml").read_text()
    )
    for file in COMPOSE.glob("*.env"):
        assert file.read_text().startswith("# For development on one machine: everybody knows")


def test_the_relay_is_not_given_the_password_of_the_superuser(services: dict[str, Any]) -> None:
    assert not any("POSTGRES_PASSWORD" in services[name]["environment"] for name in OURS)
    assert urlsplit(services["workers"]["environment"]["RELAY_POSTGRES_URL"]).username == "app"


def test_every_file_that_is_mounted_exists(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    bound = [mount for mount in mounts if mount["type"] == "bind"]
    assert bound
    assert [mount["source"] for mount in bound if not Path(mount["source"]).exists()] == []
    assert all(mount["read_only"] for mount in bound)


def test_a_port_and_the_size_of_workers_can_be_chosen() -> None:
    chosen = resolve(POSTGRES_PORT="15432", WORKER_PROCESSES="3", TIDE_RELAY_IMAGE="example.org/tide-relay:1.2.3")
    assert chosen["services"]["postgres"]["ports"][0]["published"] == "15432"
    assert chosen["services"]["workers"]["environment"]["RELAY_WORKER_PROCESSES"] == "3"
    assert chosen["services"]["workers"]["image"] == "example.org/tide-relay:1.2.3"


def test_prometheus_asks_each_program_where_it_answers() -> None:
    jobs = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
    asked = {(job["dns_sd_configs"][0]["names"][0], job["dns_sd_configs"][0]["port"]) for job in jobs}
    fields = {"scheduler": "metrics_addr", "workers": "worker_metrics_addr", "api": "api_metrics_addr"}
    ports = {name: int(Settings.model_fields[field].default.split(":")[1]) for name, field in fields.items()}
    assert asked == set(ports.items())


def test_prometheus_takes_its_configuration() -> None:
    content, said = promtool("check", "config", "--syntax-only", COMPOSE / "prometheus.yaml")
    assert content, said


def test_grafana_finds_the_prometheus_and_the_dashboards_that_are_mounted(services: dict[str, Any]) -> None:
    (source,) = yaml.safe_load((COMPOSE / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert urlsplit(source["url"]).hostname in services
    (provider,) = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yaml").read_text())["providers"]
    mounts = {mount["target"] for mount in services["grafana"]["volumes"]}
    assert list((CHECKOUT / "deploy" / "helm" / "dashboards").glob("*.json"))
    assert provider["options"]["path"] in mounts


def test_the_owner_of_the_database_is_no_superuser_and_can_migrate_it(
    own_postgres: Callable[[], PostgresServer],
) -> None:
    """What the container of PostgreSQL runs when its volume is new, on a real server."""
    admin = urlsplit(own_postgres().admin_url)
    password = "it's not simple"  # a quote in it must not end the statement
    environment = {
        "PATH": f"{_postgres_programs(18)}:{os.environ['PATH']}", "APP_PASSWORD": password,
        "PGHOST": str(admin.hostname), "PGPORT": str(admin.port), "PGPASSWORD": str(admin.password),
    }  # fmt: skip
    subprocess.run([COMPOSE / "postgres-roles.sh"], env=environment, check=True, timeout=60)
    url = f"postgresql://app:{quote(password)}@{admin.hostname}:{admin.port}/app"
    migrate(url)
    with psycopg.connect(url) as owner:
        query = "select rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname = current_user"
        assert owner.execute(query).fetchone() == (False,)
