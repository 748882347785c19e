"""Amazon's services for tests: moto, as a server process of our own. SQS, S3 and IAM answer under one address.

It keeps everything in memory: `stop` and `kill` leave nothing behind. What is asked of a service that comes back with
what it confirmed is asked through a proxy (`proxy.py`), or with the process halted (`halt.py`).
"""

import importlib.util
import json
import os
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.local.server_process import ServerProcess
from tests.services.unavailable import unavailable

REGION = "eu-central-1"
_PROGRAM = Path(__file__).with_name("moto_program.py")
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_CALLS_TO_MAKE_A_USER = 3


class MotoServer(ServerProcess):
    """Takes any credentials; with `authenticated`, only those of `credentials`, which are new after each start."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path, authenticated: bool = False) -> None:
        super().__init__(data_dir)
        self._authenticated = authenticated
        self.credentials = {"access_key_id": "tide", "secret_access_key": f"secret-{secrets.token_urlsafe(12)}"}

    @property
    def url(self) -> str:
        """The `endpoint_url` of all its services."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> dict[str, str]:
        """The keys of a pipeline that lead here."""
        return {"endpoint_url": self.url, "region": REGION, **self.credentials}

    def start(self) -> "MotoServer":
        running = self.pid is not None
        super().start()
        if self._authenticated and not running:
            self._make_user()
        return self

    def client(self, service: str, endpoint_url: str | None = None) -> Any:
        """A client of boto3, such as `client("s3")`, allowed everything; to be closed."""
        import boto3  # type: ignore[import-untyped]

        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=endpoint_url or self.url,
            aws_access_key_id=self.credentials["access_key_id"],
            aws_secret_access_key=self.credentials["secret_access_key"],
        )

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        if importlib.util.find_spec("moto") is None:
            unavailable("moto is missing (make setup)")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
        if self._authenticated:
            environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(_CALLS_TO_MAKE_A_USER)
        return [sys.executable, "-P", str(_PROGRAM), "--host", "127.0.0.1", "--port", str(self.port)], {
            "env": environment
        }

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=1) as answer:
                return int(answer.status) == 200
        except (OSError, urllib.error.URLError):
            return False

    def _make_user(self) -> None:
        iam = self.client("iam")
        try:
            iam.create_user(UserName="tide")
            key = iam.create_access_key(UserName="tide")["AccessKey"]
            iam.put_user_policy(UserName="tide", PolicyName="all", PolicyDocument=json.dumps(_EVERYTHING))
        finally:
            iam.close()
        self.credentials = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
