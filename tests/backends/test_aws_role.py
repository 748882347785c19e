"""Acting as a role, on a server that gives the keys for it."""

import pytest

from relay.backends.common.aws import AwsKeys, make_client
from tests.services.moto import MotoServer


def test_it_acts_as_a_role(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.url)
    keys = AwsKeys.model_validate(moto_server.config | {"role_arn": "arn:aws:iam::123456789012:role/relay"})
    # The server loads what it needs for a service when it is first asked, which a loaded machine does slowly.
    made = make_client("sts", "sts", keys, "pipeline 'p'", timeout_seconds=60)
    assert ":assumed-role/relay/tide-relay" in made.get_caller_identity()["Arn"]
    made.close()
