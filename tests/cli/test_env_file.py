"""Where a verb finds the database when none is given: the file that `relay up` leaves."""

import subprocess
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.local import env_file
from tests.cli.command import environment, run
from tests.services.postgres import Database

URLS = {"postgres_url": "postgresql://u:it's@h/d", "broker_url": "redis://:p w@h/0"}


def test_what_is_written_is_read_and_is_for_the_user_alone(tmp_path: Path) -> None:
    path = env_file.write(tmp_path, URLS)
    assert env_file.read(path) == URLS
    assert path.stat().st_mode & 0o777 == 0o600
    env_file.remove(tmp_path)
    assert env_file.read(path) == {}


def test_a_shell_reads_it_too(tmp_path: Path) -> None:
    path = env_file.write(tmp_path, URLS)
    printed = subprocess.run(
        ["sh", "-c", f'. {path}; printf %s "$RELAY_POSTGRES_URL"'], capture_output=True, text=True, check=True
    )
    assert printed.stdout == URLS["postgres_url"]


def test_one_that_others_could_have_written_is_refused(tmp_path: Path) -> None:
    path = env_file.write(tmp_path, URLS)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="mode 600"):
        env_file.read(path)


def test_a_verb_in_the_same_folder_uses_it_and_says_so(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / env_file.DEFAULT_FOLDER
    folder.mkdir()
    env_file.write(folder, {"postgres_url": database.url})
    done = run("migrate", "--check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "the database is current\n")
    assert "using the database of tide-data/env: postgresql://tide_owner:***@" in done.stderr


@pytest.mark.parametrize("variable", ["RELAY_POSTGRES_URL", "PGTRICKLE_RELAY_POSTGRES_URL"])
def test_the_environment_is_stronger(database: Database, tmp_path: Path, variable: str) -> None:
    folder = tmp_path / env_file.DEFAULT_FOLDER
    folder.mkdir()
    env_file.write(folder, {"postgres_url": "postgresql://unknown@127.0.0.1:1/nowhere"})
    done = run("migrate", "--check", cwd=tmp_path, env=environment(**{variable: database.url}))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_option_is_stronger_still(database: Database, tmp_path: Path) -> None:
    elsewhere = environment(RELAY_POSTGRES_URL="postgresql://unknown@127.0.0.1:1/nowhere")
    done = run("migrate", "--check", "--postgres-url", database.url, cwd=tmp_path, env=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
