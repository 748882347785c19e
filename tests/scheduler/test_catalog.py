"""Which pipelines a scheduler may own, read from a real database."""

import pytest
from psycopg.types.json import Jsonb

from relay.masking import MOST_CHARACTERS
from relay.settings import Settings
from scheduler import catalog as catalog_module
from scheduler.catalog import Catalog
from scheduler.session import Session


@pytest.fixture
def session(database):
    with Session(Settings.load(postgres_url=database.url)) as session:
        yield session


def read(catalog: Catalog, session: Session) -> int:
    """How many pieces it took."""
    return sum(1 for _ in catalog.read(session))


def reason(database, name: str):
    with database.connect() as connection:
        [(reason,)] = connection.execute("select invalid_reason from tide.pipeline where name = %s", [name]).fetchall()
    return reason


def test_a_valid_pipeline_is_known_by_what_a_scheduler_needs(session, make):
    make("a", visibility_timeout_ms=7000, poll_interval_ms=250)
    catalog = Catalog("default")
    read(catalog, session)
    spec = catalog.specs["a"]
    assert (spec.outbox, spec.lease_ms, spec.poll_seconds) == ("orders", 7000, 0.25)
    assert spec.labels == ("a", "forward", "memory")


def test_an_invalid_one_is_told_to_the_database_and_left_out(session, make, database):
    make("fine")
    make("wrong", batch_size=0)
    catalog = Catalog("default")
    read(catalog, session)
    assert (list(catalog.specs), catalog.invalid) == (["fine"], 1)
    assert "batch_size" in reason(database, "wrong")
    make("wrong", batch_size=1)
    assert reason(database, "wrong") is None
    read(catalog, session)
    assert (sorted(catalog.specs), catalog.invalid) == (["fine", "wrong"], 0)


HOSTILE = {
    "digits": '{"sink_type": "memory", "batch_size": ' + "9" * 5000 + "}",
    "exponent": '{"sink_type": "memory", "batch_size": 1e400}',
    "deep": '{"sink_type": "memory", "name": ' + "[" * 1500 + "]" * 1500 + "}",
    "somewhat_deep": '{"sink_type": "memory", "name": ' + "[" * 400 + "]" * 400 + "}",
    "deep_objects": '{"sink_type": "memory", "name": ' + '{"a":' * 600 + "1" + "}" * 600 + "}",
    "long_key": '{"sink_type": "memory", "' + "k" * 100_000 + '": 1}',
    "long_type": '{"sink_type": "' + "k" * 100_000 + '"}',
    "long": '{"sink_type": "memory", "name": "' + "k" * 2_000_000 + '"}',
    "group": '{"sink_type": "memory", "relay_group_id": [["default"]]}',
}


def test_no_configuration_keeps_a_scheduler_from_the_others(session, make, database):
    """Anyone who may set one pipeline could stop all."""
    make("fine")
    with database.connect() as connection:
        for name, config in HOSTILE.items():
            connection.execute("select tide.relay_set_outbox(%s, 'orders', %s::jsonb)", [name, config])
    catalog = Catalog("default")
    for _ in range(2):
        read(catalog, session)
        assert (list(catalog.specs), catalog.invalid) == (["fine"], len(HOSTILE))
    for name in HOSTILE:
        assert 0 < len(reason(database, name)) <= MOST_CHARACTERS


def test_one_that_meets_a_bug_is_invalid_and_the_others_are_owned(session, make, database, monkeypatch):
    make("fine")
    make("odd", batch_size=7)
    right = catalog_module.parse_forward

    def with_a_bug(config):
        return {}["bug"] if config.get("batch_size") == 7 else right(config)

    monkeypatch.setattr(catalog_module, "parse_forward", with_a_bug)
    catalog = Catalog("default")
    read(catalog, session)
    assert list(catalog.specs) == ["fine"]
    assert "KeyError" in reason(database, "odd")


def test_disabled_pipelines_are_left_out_and_judged_even_so(session, make, database):
    make("a", sink_type="pigeon")
    with database.connect() as connection:
        connection.execute("select tide.relay_disable('a')")
    catalog = Catalog("default")
    read(catalog, session)
    assert (catalog.specs, catalog.invalid) == ({}, 0)
    assert "pigeon" in reason(database, "a")


def test_pipelines_of_another_group_are_left_out(session, make):
    make("any")
    make("ours", relay_group_id="default")
    make("theirs", relay_group_id="blue")
    catalog = Catalog("default")
    read(catalog, session)
    assert sorted(catalog.specs) == ["any", "ours"]


def test_an_unchanged_pipeline_keeps_its_spec_and_a_changed_one_does_not(session, make):
    make("a")
    catalog = Catalog("default")
    read(catalog, session)
    before = catalog.specs["a"]
    read(catalog, session)
    assert catalog.specs["a"] is before, "it is not judged again"
    make("a", visibility_timeout_ms=9000)
    read(catalog, session)
    assert catalog.specs["a"].revision > before.revision


def test_a_verdict_of_another_version_is_replaced(session, make, database):
    make("a")
    with database.connect() as connection:
        connection.execute("update tide.pipeline set invalid_reason = 'an older version did not know it'")
    read(Catalog("default"), session)
    assert reason(database, "a") is None


@pytest.fixture
def receive(database):
    def receive(name: str, **config):
        with database.connect() as connection:
            connection.execute("select tide.inbox_create('in') where not exists (select from tide.inbox)")
            connection.execute("select tide.relay_set_inbox(%s, 'in', %s)", [name, Jsonb(config)])

    return receive


def test_reverse_pipelines_are_owned_as_the_others(session, receive, database):
    receive("a", source_type="file", path="/tmp/a", visibility_timeout_ms=7000)
    receive("wrong", source_type="file")
    catalog = Catalog("default")
    read(catalog, session)
    assert (list(catalog.specs), catalog.invalid) == (["a"], 1)
    spec = catalog.specs["a"]
    assert (spec.outbox, spec.lease_ms, spec.labels) == ("", 7000, ("a", "reverse", "file"))
    assert "path: is missing" in reason(database, "wrong")


def test_what_a_process_of_its_own_receives_is_judged_and_owned_by_nobody(session, receive, database):
    receive("hook", source_type="webhook", scheme="bearer", signing_secret="a secret that is long enough")
    receive("wrong", source_type="webhook", scheme="pigeon")
    catalog = Catalog("default")
    read(catalog, session)
    assert (catalog.specs, catalog.invalid) == ({}, 1)
    assert reason(database, "hook") is None
    assert "scheme" in reason(database, "wrong")


def test_a_pipeline_made_again_under_its_name_is_another_one(session, make, database):
    make("a")
    catalog = Catalog("default")
    read(catalog, session)
    before = catalog.specs["a"]
    with database.connect() as connection:
        connection.execute("select tide.relay_delete('a')")
    make("a")
    read(catalog, session)
    assert catalog.specs["a"].revision > before.revision
