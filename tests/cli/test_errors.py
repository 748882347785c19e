"""Everything that users can do wrong that we can think of: what they are told has the form that an error has."""

from pathlib import Path

from tests.cli.command import invoke
from tests.cli.errors import CASES, faults_of, told
from tests.services.postgres import Database


def test_every_error_says_what_happened_and_what_to_do(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
        connection.execute("select tide.inbox_create('commands')")
        connection.execute("""select tide.relay_set_outbox('good', 'orders', 'good', '{"sink_type": "stdout"}')""")
        connection.execute("""select tide.relay_set_inbox('in', 'commands', '{"source_type": "stdin"}')""")
        connection.execute("select tide.job_queue_create('mail')")
    assert len(CASES) >= 70
    wrong = []
    for case in CASES:
        words = [word.replace("{url}", database.url).replace("{dir}", str(tmp_path)) for word in case.arguments]
        result = invoke(*words, url=database.url, stdin=case.stdin, **case.variables)
        given = " ".join([*(f"{name}={value}" for name, value in case.variables.items()), "relay", *case.arguments])
        print(f"\n{given[:200]}\n  {told(result).strip()}")
        wrong += [f"{given[:200]}\n  {told(result).strip()}\n  FAULT: {fault}" for fault in faults_of(case, result)]
    assert not wrong, "\n" + "\n".join(wrong)
