"""What Amazon's clients may be sent to: endpoints are names that a configuration chooses."""

import pytest

from relay.backends.common import addresses
from relay.errors import ConfigError
from relay.pipelines.config import parse_forward


@pytest.mark.parametrize(
    "keys",
    [
        {"sink_type": "sqs", "queue_url": "http://{}/1/orders", "region": "eu-central-1"},
        {"sink_type": "object_storage", "bucket": "bucket", "endpoint_url": "http://{}/", "region": "eu-central-1"},
    ],
)
@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0251.0376.0251.0376", "metadata.test"])
def test_an_endpoint_is_never_the_metadata_service_of_a_cloud(
    keys: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = addresses.socket.getaddrinfo
    monkeypatch.setattr(
        addresses.socket,
        "getaddrinfo",
        lambda name, *rest, **more: asked("169.254.169.254" if name == "metadata.test" else name, *rest, **more),
    )
    config = {key: value.format(host) for key, value in keys.items()}
    with pytest.raises(ConfigError, match="where no such service can be"):  # an address when it is set, a name later
        parse_forward(config | {"allow_http": True, "access_key_id": "a", "secret_access_key": "b"}).make_sink(
            "p"
        ).open()
