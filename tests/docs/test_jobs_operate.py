"""Pages about jobs, block after block as they are printed; a worker in SQL does what workers do."""

import shlex

from tests.cli.jobs import Bench
from tests.docs.pages import blocks
from tests.services.postgres import Database
from tests.sql.jobs.jobs import Worker

FIRST, THIRD = (f"00000001-0000-8000-8000-00000000000{n}" for n in (1, 3))


def run(bench: Bench, block: str) -> list[str]:
    """The commands of a block, which must succeed; what each printed."""
    printed = []
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "relay"
        done = bench.relay(*arguments)
        assert done.exit_code == 0, (line, done.output)
        printed.append(done.stdout)
    return printed


def test_operate_jobs(database: Database) -> None:
    bench = Bench(database, queue=None)
    look, failed, unwanted, pause, clean, stuck = blocks("jobs/operate", "sh")
    printed = run(bench, look)
    assert printed[1] == f"{FIRST}\n" and FIRST in printed[3]
    bench.worker = Worker(bench.session)
    bench.worker.run(outcome="d", code="bad")
    listed, attempts, replayed, many = run(bench, failed)
    assert FIRST in listed and "it was bad" in attempts and replayed.startswith("00000001-")
    assert many == "replayed 0 jobs\n", "it was replayed before"
    bench.worker.run()
    later, cancelled, none = run(bench, unwanted)
    assert (later.strip(), cancelled, none) == (THIRD, "cancelled\n", "cancelled 0 jobs\n")
    run(bench, pause)
    assert run(bench, clean)[0] == "removed 0 dead jobs\n"
    status, workers = run(bench, stuck)
    assert "queues of jobs" in status and "here" in workers
    bench.session.close()


def test_chains_batches_and_dependencies(database: Database) -> None:
    with database.connect() as session:

        def run_all(times: int = 1) -> list[str]:
            """What was run, by name."""
            worker = Worker(session, "imports")
            ids = [job for _ in range(times) for job in worker.run()]
            found = dict(session.execute("select id, name from tide.job").fetchall())
            return [found[job] for job in ids]

        create, chain, batch, dependency = blocks("jobs/chains")
        session.execute(create)
        session.execute(chain)
        assert run_all(3) == ["download", "parse"]
        assert session.execute("select name from tide.job_list('imports', 'pending')").fetchall() == [("report",)]
        session.execute("update tide.job_wait set available_at = now()")
        assert run_all() == ["report"]
        ends = [cursor.fetchall() for cursor in session.execute(batch).results() if cursor.description]
        assert ends[-1] == [(True, 2, 0, 0)]
        assert run_all(2) == ["parse_part", "parse_part", "publish", "report"]
        session.execute(dependency)
        assert run_all(2) == ["load_prices", "load_stock", "rebuild"]
