"""What was signed is genuine; changed in any way that counts, it is not; and no header makes the check raise."""

import base64
import hashlib
import hmac
import random
from collections.abc import Mapping

from relay.backends.webhook.signatures import Scheme, Verifier, sign_standard, standard_key
from tests.fuzz.generate import BYTES, hard_json, mutated, swarm, text
from tests.fuzz.running import main

NOW = 1_700_000_000
SCHEMES: tuple[Scheme, ...] = ("standard", "github", "stripe", "hmac", "bearer")
HEADERS = (
    "webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256", "stripe-signature",
    "x-signature-256", "authorization", "svix-id", "svix-timestamp", "svix-signature",
)  # fmt: skip
PARTS = (
    "v1,",
    "v1=",
    "t=",
    "sha256=",
    "Bearer ",
    "bearer",
    "1700000000",
    "aGk=",
    "00ff",
    ",",
    " ",
    "=",
    "٣",
    "²",
    "\0",
)


def case(rng: random.Random) -> None:
    if rng.random() < 0.5:
        anything(rng)
    else:
        genuine(rng)


def anything(rng: random.Random) -> None:
    """Headers of any bytes, as a server reads them."""
    scheme, all_secrets = rng.choice(SCHEMES), secrets(rng)
    # Often all but one are as they should be, so that the check comes to that one.
    headers = dict(signed(scheme, "of someone else", b"", NOW)) if rng.random() < 0.7 else {}
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(tuple(headers)) if headers else swarm(rng, HEADERS, lambda: text(rng)).lower()
        headers[name] = as_received(b"".join(part(rng) for _ in range(rng.choice((1, 1, 2, 8)))))
    verifier = Verifier(scheme, all_secrets, 300.0)
    assert verifier.problem(headers, rng.randbytes(rng.randrange(20)), NOW) in (
        "missing",
        "malformed",
        "stale",
        "mismatch",
    )


def genuine(rng: random.Random) -> None:
    scheme, body, all_secrets = rng.choice(SCHEMES), rng.randbytes(rng.randrange(200)), secrets(rng)
    verifier = Verifier(scheme, all_secrets, 300.0)
    headers = signed(scheme, rng.choice(all_secrets), body, NOW)
    assert verifier.problem(headers, body, NOW) is None, (scheme, headers)
    if scheme != "bearer":
        assert verifier.problem(headers, mutated_body(rng, body), NOW) is not None, (scheme, "another body")
    others = tuple(f"another {number}" for number in range(len(all_secrets)))
    assert Verifier(scheme, others, 300.0).problem(headers, body, NOW) is not None, (scheme, "another secret")
    for name in headers:
        without = {other: value for other, value in headers.items() if other != name}
        assert verifier.problem(without, body, NOW) is not None, (scheme, "without", name)
    if scheme in ("standard", "stripe"):
        for moment in (NOW - 301, NOW + 301):
            assert verifier.problem(headers, body, moment) == "stale"
    if scheme == "standard":
        for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(NOW + 1))):
            assert verifier.problem(dict(headers) | {name: value}, body, NOW) == "mismatch"


def signed(scheme: Scheme, secret: str, body: bytes, now: int) -> Mapping[str, str]:
    """As senders do it, by the descriptions of each scheme and not by our own code (but for `standard`)."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256)
    if scheme == "standard":
        signature = sign_standard([standard_key(secret)], "msg_1", now, body)
        return {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    if scheme == "github":
        return {"x-hub-signature-256": f"sha256={digest.hexdigest()}"}
    if scheme == "stripe":
        timed = hmac.new(secret.encode(), b"%d." % now + body, hashlib.sha256).hexdigest()
        return {"stripe-signature": f"t={now},v1={timed}"}
    if scheme == "hmac":
        return {"x-signature-256": base64.b64encode(digest.digest()).decode()}
    return {"authorization": f"Bearer {secret}"}


def secrets(rng: random.Random) -> tuple[str, ...]:
    """Of a configuration: some look like others, none is empty."""
    pool = ("s3cret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ключ", "a", "a b", "x" * 300)
    return tuple(rng.sample(pool, rng.randrange(1, 4)))


def part(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(BYTES)
    if kind == 1:
        return hard_json(rng, 3000).encode()
    return rng.choice(PARTS).encode() if kind == 2 else rng.randbytes(rng.randrange(40))


def as_received(data: bytes) -> str:
    """As `relay api` makes text of a header's value."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def mutated_body(rng: random.Random, body: bytes) -> bytes:
    while (changed := mutated(rng, body)) == body:
        pass
    return changed


if __name__ == "__main__":
    main("signatures", case)
