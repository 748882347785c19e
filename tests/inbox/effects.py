"""A handler that leaves an effect for each message, and looks at what it left."""

from relay import inbox


def effects(db):
    return [row[0] for row in db.execute("select event_id from public.effect order by n")]


def has_effects(db, number):
    return len(effects(db)) >= number


def leave_effect(connection, message):
    connection.execute("insert into public.effect (event_id) values (%s)", [message.event_id])


def drain(database, handler=leave_effect, **options):
    return inbox.run(database.url, "commands", handler, until_empty=True, **options)
