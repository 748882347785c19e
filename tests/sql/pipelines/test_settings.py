"""Settings of the database."""

from relay.sql import statements
from tests.sql.support import refused


def value(connection, name):
    [(found,)] = connection.execute("select value from tide.setting where name = %s", [name]).fetchall()
    return found


def test_every_setting_is_read_by_something(database):
    with database.connect() as connection:
        unread = connection.execute("""
            select s.name from tide.setting s
             where not exists (select from pg_proc f
                                where f.pronamespace = 'tide'::regnamespace
                                  and f.proname !~ '^setting_'
                                  and position(quote_literal(s.name) in pg_get_functiondef(f.oid)) > 0)
             order by 1""").fetchall()
    ours = "".join(statements().values())
    assert [name for (name,) in unread if f"'{name}'" not in ours] == []


def test_a_setting_is_changed_and_reset(database):
    with database.connect() as connection:
        connection.execute("select tide.setting_set('max_retention_hours', ' 5 ')")
        assert connection.execute("select tide.setting_number('max_retention_hours')").fetchone() == (5,)
        connection.execute("select tide.setting_reset('max_retention_hours')")
        assert value(connection, "max_retention_hours") == "168"
        connection.execute("select tide.setting_set('inbox_enabled', 'OFF')")
        assert connection.execute("select tide.setting_is_on('inbox_enabled')").fetchone() == (False,)


def test_a_wrong_value_or_name_changes_nothing(database):
    with database.connect() as connection:
        for name, wrong in (("max_retention_hours", "-1"), ("max_retention_hours", "1.5"), ("inbox_enabled", "maybe")):
            before = value(connection, name)
            with refused("22023", name):
                connection.execute("select tide.setting_set(%s, %s)", [name, wrong])
            with refused("22023", name):
                connection.execute("select tide.setting_set(%s, null)", [name])
            assert value(connection, name) == before
        with refused("42704", "nonsense", hint="inbox_enabled"):
            connection.execute("select tide.setting_set('nonsense', '1')")
        with refused("42704", "NULL"):
            connection.execute("select tide.setting_reset(null)")
