"""What one who may set pipelines, and nothing else, reaches on the machine that runs them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from relay import reach
from relay.backends.common.aws import AwsKeys, make_client
from relay.backends.common.tls import TlsKeys, tls_context
from relay.backends.postgresql.parameters import bound
from relay.backends.registry import SINKS, SOURCES, sink_class, source_class
from relay.errors import ConfigError
from relay.pipelines.config import parse, parse_forward
from relay.reach import Reach
from relay.settings import Settings
from tests.services.postgres import Database

OURS = ("RELAY_POSTGRES_URL", "RELAY_BROKER_URL", "PGTRICKLE_RELAY_POSTGRES_URL", "relay_postgres_url", "RELAY_ANY")


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The one folder that the operator names, for everything. Beside it lies what is not for pipelines."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    (tmp_path / "allowed-too").mkdir()
    (tmp_path / "secret").write_text("hidden-password")
    (tmp_path / "secret").chmod(0o600)
    folders = (str(folder),)
    reach.put_in_force(Reach(secret_folders=folders, sink_folders=folders, source_folders=folders))
    return folder


def env(name: str) -> str:
    return f"${{env:{name}}}"


def file(path: str) -> str:
    return f"${{file:{path}}}"


def refused(config: dict[str, Any], *, resolved: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_forward({"sink_type": "memory", **config}, resolved=resolved)
    return str(caught.value)


class TestVariables:
    @pytest.mark.parametrize("name", OURS)
    @pytest.mark.parametrize("resolved", [True, False])
    def test_of_ours_are_never_resolved_and_a_scheduler_says_so_already(
        self, name: str, resolved: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, "postgresql://u:hidden-password@h/d")
        reach.put_in_force(Reach(secret_variables=("R", "PG", "r")))  # which no operator can permit
        said = refused({"name": f"x {env(name)} y"}, resolved=resolved)
        assert said.startswith(f"name: {env(name)}: is refused: variables that begin with RELAY_")
        assert "hidden" not in said

    @pytest.mark.parametrize("name", ["PGPASSWORD", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PATH", "TIDE_SECRE"])
    def test_are_those_with_the_operators_prefixes(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "hidden-password")
        present = refused({"name": env(name)})
        assert "begin with TIDE_SECRET_" in present and "RELAY_SECRET_VARIABLES" in present
        monkeypatch.delenv(name)
        assert refused({"name": env(name)}) == present, "it does not say whether there is one"
        monkeypatch.setenv(name, "value-of-it")
        reach.put_in_force(Reach(secret_variables=("TIDE_SECRET_", name)))
        parse_forward({"sink_type": "memory", "name": env(name)}, resolved=True)

    @pytest.mark.parametrize("given", ["RELAY_", "relay_x", "PGTRICKLE_RELAY_", "", "A,,B", "A-B", "*"])
    def test_prefixes_are_names_and_not_ours(self, given: str) -> None:
        with pytest.raises(ConfigError, match="--secret-variables"):
            Settings.load(postgres_url="postgresql://h", secret_variables=given)


def link_to(target: str) -> Callable[[Path], str]:
    def make(inside: Path) -> str:
        (inside / "link").symlink_to(inside.parent / target)
        return str(inside / "link")

    return make


ESCAPES: dict[str, Callable[[Path], str]] = {
    "beside": lambda inside: str(inside.parent / "secret"),
    "beside, and there is nothing": lambda inside: str(inside.parent / "none"),
    "a folder with the same beginning": lambda inside: str(inside.parent / "allowed-too" / "x"),
    "dots": lambda inside: f"{inside}/../secret",
    "dots that come back": lambda inside: f"{inside.parent}/nowhere/../allowed/x",
    "the folder itself": str,
    "a link": link_to("secret"),
    "a link to a folder": lambda inside: link_to("allowed-too")(inside) + "/x",
    "the kernel's": lambda _: "/proc/self/environ",
    "a device": lambda _: "/dev/stdin",
    "relative": lambda _: "secret",
    "a zero byte": lambda inside: f"{inside}/x\0y",
}


@pytest.mark.parametrize("escape", ESCAPES)
class TestPathsOutside:
    def test_are_no_secrets(self, escape: str, inside: Path) -> None:
        path = ESCAPES[escape](inside)
        said = refused({"name": file(path)})
        assert "RELAY_SECRET_FOLDERS" in said and "hidden" not in said
        for key in ("tls_ca", "tls_key"):
            keys = TlsKeys.model_validate({"tls_ca": path} if key == "tls_ca" else {"tls_cert": path, "tls_key": path})
            with pytest.raises(ConfigError, match="RELAY_SECRET_FOLDERS"):
                tls_context(keys, "pipeline 'p'")
        if "\0" not in path:  # which no URL holds
            with pytest.raises(ConfigError, match=r"sslkey.*RELAY_SECRET_FOLDERS"):
                bound(f"postgresql://h/d?sslkey={quote(path)}", "pipeline 'p'")

    @pytest.mark.parametrize(("kind", "keys"), [("file", {}), ("object_storage", {"create": True})])
    def test_are_not_written(self, escape: str, inside: Path, kind: str, keys: dict[str, Any]) -> None:
        path = ESCAPES[escape](inside)
        cls = sink_class(kind)
        sink = cls(cls.config_model.model_construct(**_defaults(cls.config_model), **keys | {"path": path}), "p")
        before = sorted(inside.parent.rglob("*"))
        with pytest.raises(ConfigError, match="RELAY_SINK_FOLDERS"):
            sink.open()
        assert sorted(inside.parent.rglob("*")) == before

    def test_are_not_received_from(self, escape: str, inside: Path) -> None:
        cls = source_class("file")
        made = cls.config_model.model_construct(**_defaults(cls.config_model) | {"path": ESCAPES[escape](inside)})
        for positions in ({}, {made.path: "1:0:10:0:0:0:0"}):  # type: ignore[attr-defined]
            with pytest.raises(ConfigError, match="RELAY_SOURCE_FOLDERS"):
                cls(made, "p").open(positions)


def _defaults(model: Any) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()
            if name not in ("path", "create")}  # fmt: skip


class TestPathsInside:
    def test_of_a_mounted_kubernetes_secret_are_links_inside_its_folder(self, inside: Path) -> None:
        (inside / "..2026_11_28").mkdir()
        (inside / "..2026_11_28" / "password").write_text("s3cret-pw\n")
        (inside / "..data").symlink_to("..2026_11_28")
        (inside / "password").symlink_to("..data/password")
        config = parse_forward({"sink_type": "memory", "name": file(f"{inside}/password")}, resolved=True)
        assert config.sink.name == "s3cret-pw"  # type: ignore[attr-defined]

    def test_may_go_by_a_link_that_is_the_folder_itself(self, inside: Path, tmp_path: Path) -> None:
        (tmp_path / "mount").symlink_to(inside)
        reach.put_in_force(Reach(secret_folders=(str(tmp_path / "mount"),)))
        (inside / "a").write_text("value")
        for path in (tmp_path / "mount" / "a", inside / "a"):
            assert reach.read_secret_file(str(path), 100) == b"value"

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
    def test_are_regular_files(self, inside: Path, make: Callable[[Path], None]) -> None:
        make(inside / "x")
        assert "not a file" in refused({"name": file(f"{inside}/x")}) or make is os.mkdir
        with pytest.raises(ConfigError, match="tls_ca"):
            tls_context(TlsKeys(tls_ca=str(inside / "x")), "pipeline 'p'")

    def test_beside_a_file_that_is_followed_may_be_links_that_lead_out(self, inside: Path, tmp_path: Path) -> None:
        (inside / "in.jsonl").write_text('{"n": 1}\n')
        (inside / "in.jsonl.1").symlink_to(tmp_path / "secret")
        cls = source_class("file")
        source = cls(cls.config_model.model_validate({"path": str(inside / "in.jsonl"), "rotate_wait_ms": 0}), "p")
        source.open({})
        [first] = source.receive(10, 0)
        source.ack([first])
        source.close()
        (inside / "in.jsonl").rename(tmp_path / "gone")
        (inside / "in.jsonl").write_text('{"n": 2}\n')
        source.open({first.partition: str(first.position)})
        assert [message.body for message in source.receive(10, 1)] == [b'{"n": 2}']
        source.close()


class TestTheIdentityOfTheProcess:
    @pytest.mark.parametrize("keys", [{}, {"profile": "p"}, {"role_arn": "arn:aws:iam::1:role/r"}])
    def test_is_not_lent_to_amazon(self, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHIDDEN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
        made = AwsKeys.model_validate(keys | {"region": "eu-west-1", "endpoint_url": "https://attacker.example.com"})
        with pytest.raises(ConfigError, match="RELAY_AMBIENT_CREDENTIALS"):
            make_client("s3", "object-storage", made, "pipeline 'p'", timeout_seconds=1)

    def test_is_lent_if_the_operator_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHIDDEN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
        reach.put_in_force(Reach(ambient_credentials=True))
        made = AwsKeys.model_validate({"region": "eu-west-1"})
        make_client("s3", "object-storage", made, "pipeline 'p'", timeout_seconds=1).close()

    @pytest.mark.parametrize(
        "url", ["postgresql:///d", "postgresql://%2Fvar%2Frun%2Fpostgresql/d", "postgresql:///d?host=@x",
                "postgresql://a,/d", "postgresql:///d?host=h,/tmp", "postgresql://h/d?require_auth=gss"],
    )  # fmt: skip
    def test_is_not_lent_to_a_database(self, url: str) -> None:
        with pytest.raises(ConfigError, match="RELAY_AMBIENT_CREDENTIALS"):
            bound(url, "pipeline 'p'")

    def test_password_of_the_environment_and_of_the_home_stay_here(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from relay.backends.postgresql.session import connect

        user, _, rest = database.url.removeprefix("postgresql://").partition(":")
        password, _, address = rest.partition("@")
        url = f"postgresql://{user}@{address}"
        (tmp_path / "pgpass").write_text(f"*:*:*:*:{password}\n")
        (tmp_path / "pgpass").chmod(0o600)
        for name, value in {"PGPASSWORD": password, "PGPASSFILE": str(tmp_path / "pgpass")}.items():
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                with pytest.raises(ConfigError, match="no password supplied"):
                    connect(url, "pipeline 'p'", 5000, "test")
                reach.put_in_force(Reach(ambient_credentials=True))
                connect(url, "pipeline 'p'", 5000, "test").close()
                reach.put_in_force(Reach())

    @pytest.mark.parametrize("given", ["service=x", "passfile=/x", "sslkeylogfile=/x", "gsslib=x", "krbsrvname=x",
                                       "oauth_issuer=x", "requirepeer=x", "replication=database"])  # fmt: skip
    def test_nor_what_libpq_may_do_here(self, given: str) -> None:
        config = {"source_type": "outbox", "outbox": "o", "postgres_url": f"postgresql://h/d?{given}"}
        name = given.partition("=")[0]
        known = any(option.keyword.decode() == name for option in psycopg.pq.Conninfo.get_defaults())
        refusal = f"{name} cannot be set by a pipeline" if known else "cannot be understood"
        with pytest.raises(ConfigError, match=refusal):
            parse(config)


def test_every_key_that_names_a_path_is_known_to_be_bounded() -> None:
    """A new one needs a check of `relay.reach` where it is used; then it belongs here."""
    models = [sink_class(name).config_model for name in SINKS] + [source_class(name).config_model for name in SOURCES]
    words = ("path", "file", "folder", "dir", "ca", "cert", "socket", "location")
    found = {key for model in models for key in model.model_fields if set(key.split("_")) & set(words)}
    bounded = {"path", "tls_ca", "tls_cert", "creds_file", "ssl_ca", "ssl_cert"}  # and tls_key, ssl_key beside them
    assert found - bounded == {"path_style"}
