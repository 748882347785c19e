"""Which database this is, so that no two share the queues of a broker."""

import pytest

from tests.services.postgres import Database, PostgresServer

pytestmark = pytest.mark.each_postgres


def identity(database: Database) -> str:
    with database.connect() as connection:
        return str(connection.execute("select tide.database_identity()").fetchone()[0])  # type: ignore[index]


def test_a_copy_of_a_database_has_an_identity_of_its_own(pg: PostgresServer, database: Database) -> None:
    other = pg.create_database()  # both are copies of one template, with the same row
    try:
        assert len({identity(database), identity(other)}) == 2
        assert identity(database) == identity(database)
        with database.connect() as one, other.connect() as two:
            of = "select id from tide.identity"
            assert one.execute(of).fetchone() == two.execute(of).fetchone()
    finally:
        pg.drop_database(other)


def test_it_can_be_renewed_and_schedulers_are_told(database: Database) -> None:
    before = identity(database)
    with database.connect() as listener, database.connect() as connection:
        listener.execute("listen tide_relay_config")
        listener.commit()
        renewed = connection.execute("select tide.database_identity_renew()").fetchone()
        connection.commit()
        assert next(listener.notifies(timeout=20)).channel == "tide_relay_config"
    assert renewed == (identity(database),) and identity(database) != before


def test_a_service_that_withholds_the_system_identifier_is_no_obstacle(database: Database) -> None:
    with database.admin() as superuser:
        superuser.execute("revoke execute on function pg_control_system from public")
    assert len(identity(database)) == 16
