"""The page about HTTP, held against the running programs and the code."""

import ast
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from relay.local.programs import make_scheduler, make_workers
from relay.local.server_process import free_port
from relay.local.servers import EmbeddedRedis
from relay.process.health import health_response, ready_response
from relay.settings import Settings
from tests.docs.pages import blocks, text_of
from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web.api import ApiProcess

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]


def shapes() -> list[dict[str, type]]:
    """Of each answer of probes and hooks that the page shows: the names of its members and their types."""
    return [shape(json.loads(block)) for block in blocks("reference/http", "json")][:7]


def shape(answer: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in answer.items()}


def get(address: str, path: str) -> tuple[int, Any]:
    """Status and body; status 0 while nothing listens."""
    try:
        with urlopen(f"http://{address}{path}", timeout=20) as response:
            status, body = response.status, response.read()
    except HTTPError as error:
        status, body = error.code, error.read()
    except OSError:
        return 0, None
    return status, json.loads(body) if path in {"/health", "/ready"} else body.decode()


def is_ready(address: str) -> bool:
    return get(address, "/ready")[0] == 200


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    part = text_of("reference/http").split(f"\n| {first} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("| ").split("|")] for row in part.splitlines()[2:]]


def test_every_path_of_the_running_programs_answers_as_the_page_says(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    scheduler_at, workers_at = (f"127.0.0.1:{free_port()}" for _ in range(2))
    settings = Settings.load(
        postgres_url=database.url, broker_url=redis_server.url, metrics_addr=scheduler_at,
        worker_metrics_addr=workers_at, worker_processes=1, worker_threads=2,
    )  # fmt: skip
    log: list[bytes] = []
    makers = (make_scheduler, make_workers)
    programs = [make(settings, on_output=log.append, on_log=log.append, inherit=False) for make in makers]
    api = ApiProcess(database.url, tmp_path)
    of_programs = [row for row in table("program") if "`RELAY_ADMIN_ADDR`" not in row]  # see tests/web/admin
    addresses = dict(
        zip(
            (row[1].strip("`") for row in of_programs),
            (scheduler_at, workers_at, f"127.0.0.1:{api.metrics_port}", f"127.0.0.1:{api.port}"),
            strict=True,
        )
    )
    of_scheduler, of_workers, of_api, ready, *_ = shapes()
    healthy = dict(zip(addresses, (of_scheduler, of_workers, of_api, of_api), strict=True))
    try:
        for program in programs:
            program.start()
        for _, variable, _, paths in of_programs:
            address = addresses[variable.strip("`")]
            wait_until(partial(is_ready, address), 120, f"{variable} is ready")
            for path in re.findall(r"`(/\w+)`", paths):
                status, answer = get(address, path)
                assert status == 200
                if path != "/metrics":
                    assert shape(answer) == (healthy[variable.strip("`")] if path == "/health" else ready)
            status, told = get(address, "/nothing")
            assert status == 404
            if "not found; try" in told:  # the public address tells strangers nothing
                assert set(re.findall(r"/\w+", told)) == set(re.findall(r"`(/\w+)`", paths))
    finally:
        for program in programs:
            program.stop()
        api.kill()


def test_what_is_not_well_is_told_as_the_page_says() -> None:
    told = {row[0].strip("`"): int(row[1]) for row in table("`status`")}
    answers = [health_response({}, []), health_response({}, [], ["outside"]), health_response({}, ["stuck"])]
    assert {json.loads(answer.body)["status"]: answer.status for answer in answers} == told
    not_ready = ready_response(["PostgreSQL: connection refused"])
    assert (not_ready.status, shape(json.loads(not_ready.body))) == (503, shapes()[4])


def test_every_answer_of_a_hook_is_on_the_page() -> None:
    tree = ast.parse((ROOT / "relay/web/webhooks/reception.py").read_text("utf-8"))
    calls = [node.args for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Answer"]
    raised = {(ast.unparse(status), code.value) for status, code, *_ in calls if isinstance(code, ast.Constant)}
    listed = {(row[0], re.findall(r"`(\w+)`", row[1])[0]) for row in table("status")}
    # The two that the decoder names: 413, and 400 for whatever else cannot be a row; and that of relay/web/framing.py.
    assert listed == raised | {("413", "too_large"), ("400", "bad_event_id"), ("400", "bad_request")}


def test_the_answers_of_a_hook_have_the_shapes_on_the_page() -> None:
    source = (ROOT / "relay/web/webhooks/reception.py").read_text("utf-8")
    *_, stored, refused = shapes()
    assert set(re.findall(r'JSONResponse\({"(\w+)": .*, "(\w+)":', source)) == {tuple(stored)}
    assert all(f'"{name}": self' in source for name in refused)
