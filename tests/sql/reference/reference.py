"""What the tests of the calls of earlier systems share."""


def rows(db, statement, *parameters):
    return db.execute(statement, parameters or None).fetchall()


def value(db, statement, *parameters):
    """The one value of the one row."""
    [row] = rows(db, statement, *parameters)
    [found] = row.values()
    return found
