"""Publishing from Python, and handlers of inboxes, as printed: only addresses are replaced, and endless runs end."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.docs.pages import blocks, substituted, text_of
from tests.paths import ROOT
from tests.services.postgres import Database

PAGE = "get-started/python"
SHOP = "app@localhost/shop"


@pytest.fixture
def db(database: Database) -> Iterator[Any]:
    """After the page's first block."""
    with database.connect() as connection:
        [prepare] = blocks(PAGE)
        connection.execute(prepare)
        yield connection


def run(block: str, database: Database) -> dict[str, Any]:
    """A block, and the names that it leaves."""
    names: dict[str, Any] = {"__name__": "a_block"}
    address = database.url.partition("://")[2]
    exec(substituted(block, {SHOP: address}), names)
    return names


def published(db: Any) -> list[tuple[Any, ...]]:
    """Since the last look."""
    found = db.execute("select key, payload, headers from tide.message order by id").fetchall()
    db.execute("truncate tide.message")
    return found


def sections() -> dict[str, list[str]]:
    """The blocks of Python of each section."""
    parts = text_of(PAGE).replace("\n### ", "\n## ").split("\n## ")
    return {part.partition("\n")[0]: _python(part) for part in parts if _python(part)}


def _python(part: str) -> list[str]:
    return [each.partition("```")[0] for each in part.split("```python\n")[1:]]


def test_each_library_publishes_as_the_page_says(db: Any, database: Database, capsys: Any) -> None:
    found = sections()
    for library, written in {
        "psycopg": ("c-7", {"customer": "c-7", "total": "99.50"}, {"type": "order.placed"}),
        "SQLAlchemy and SQLModel": ("c-8", {"order": 2, "customer": "c-8"}, {}),
        "asyncpg": ("c-9", {"customer": "c-9"}, {}),
        "psycopg2": ("c-10", {"customer": "c-10"}, {}),
    }.items():
        [block] = found.pop(library)
        names = run(block, database)
        if "engine" in names:
            names["engine"].dispose()
        assert published(db) == [written]
    [many] = found.pop("Many at once")
    run(many, database)
    assert [payload["number"] for _, payload, _ in published(db)] == list(range(1000))
    [nan] = found.pop("Payloads")
    run(nan, database)
    assert capsys.readouterr().out == blocks(PAGE, "text")[0]
    [fastapi] = found.pop("FastAPI")
    asyncio.run(order_by_http(run(fastapi, database)))
    assert published(db) == [("c-11", {"customer": "c-11", "total": "12.50"}, {})]
    assert db.execute("select customer, total::text from orders order by id").fetchall() == [
        ("c-7", "99.5"),
        ("c-8", "20"),
        ("c-9", "5"),
        ("c-10", "7"),
        ("c-11", "12.50"),
    ]
    assert list(found) == ["Django"], "the next test runs it"


async def order_by_http(names: dict[str, Any]) -> None:
    transport = httpx.ASGITransport(names["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answer = await client.post("/orders", json={"customer": "c-11", "total": "12.50"})
    assert (answer.status_code, list(answer.json())) == (201, ["message"])
    await names["engine"].dispose()


SETTINGS = """
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF="shop.urls", INSTALLED_APPS=["shop"], SECRET_KEY="a test's",
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **%r}},
    )
    django.setup()

    from django.test import Client
    from django.db import connection

    answer = Client().post("/orders", {"customer": "c-12", "total": "3.50"})
    assert (answer.status_code, answer.json()) == (201, {"order": 1}), answer.content
    try:
        Client().post("/orders", {"customer": "c-13", "total": "no number"})
    except Exception as error:
        print(type(error).__name__)
    connection.close()
"""


def test_a_view_of_django_publishes_as_the_page_says(db: Any, database: Database, tmp_path: Path) -> None:
    models, views = sections()["Django"]
    shop = tmp_path / "shop"
    shop.mkdir()
    for name, text in {
        "__init__": "",
        "models": models,
        "views": views,
        "urls": "from django.urls import path\nfrom shop import views\n"
        "urlpatterns = [path('orders', views.create_order)]\n",
    }.items():
        (shop / f"{name}.py").write_text(text)
    parts = conninfo_to_dict(database.url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    (tmp_path / "try.py").write_text(
        textwrap.dedent(SETTINGS) % {ours: parts[theirs] for ours, theirs in names.items()}
    )
    command = [sys.executable, "try.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ValidationError\n"), done.stderr
    assert published(db) == [("c-12", {"order": 1, "total": "3.50"}, {})]


def test_the_handlers_of_inboxes_run_as_printed(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.inbox_create('payments'); create table orders (id int, paid bool)")
        printed = blocks("reference/inboxes", "python")
        assert len(printed) == 3
        for number, block in enumerate(printed):
            connection.execute("insert into orders values (%s, false)", [number])
            connection.execute("insert into tide.payments (event_id, payload) values (%s, %s)",
                               [f"p{number}", f'{{"order": {number}}}'])  # fmt: skip
            put = {
                "app@db/shop": database.url.partition("://")[2],
                '"payments", handle': '"payments", handle, until_empty=True',
            }
            names: dict[str, Any] = {}
            exec(substituted(block, put), names)
            assert connection.execute("select paid from orders where id = %s", [number]).fetchone() == (True,)
            if "Session" in names:
                names["Session"].kw["bind"].dispose()
