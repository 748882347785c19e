"""`relay workers`: the dramatiq command with our settings."""

import signal
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.cli.command import environment, run, start
from tests.cli.test_status import make_pipeline, publish
from tests.e2e.fleet import fleet
from tests.services.postgres import Database
from tests.waiting import wait_until


def test_it_becomes_dramatiq_with_our_settings_and_drains(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    make_pipeline(database, {"sink_type": "file", "path": str(out)})
    publish(database, 3)
    (tmp_path / "workers").mkdir()  # an unrelated folder with the same name
    (tmp_path / "workers" / "__init__.py").write_text("raise SystemExit('not this one')")
    variables = environment(
        RELAY_POSTGRES_URL=database.url, RELAY_BROKER_URL=redis_server.url,
        RELAY_WORKER_METRICS_ADDR="127.0.0.1:0", RELAY_WORKER_SHUTDOWN_TIMEOUT="7s",
    )  # fmt: skip
    with (tmp_path / "log").open("w") as log, fleet(database.url, redis_server.url, workers=False):
        command = start("workers", "--processes", "1", "--threads", "3", cwd=tmp_path, env=variables, stdout=log)
        try:
            wait_until(lambda: out.exists() and len(out.read_text().splitlines()) == 3, 30)
            words = Path(f"/proc/{command.pid}/cmdline").read_text().split("\0")
            assert words[words.index("--processes") + 1] == "1"
            assert words[words.index("--threads") + 1] == "3"
            assert words[words.index("--worker-shutdown-timeout") + 1] == "7000"
            assert not any("://" in word for word in words)
        finally:
            command.send_signal(signal.SIGTERM)
            assert command.wait(30) == 0


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    done = run("workers", "--processes", "many", "--postgres-url", "postgresql://h/d", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("relay workers: wrong settings: --worker-processes='many'")
