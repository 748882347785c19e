"""Webhook signatures: made by the webhook sink, checked by `relay api`.

Every check is over the raw body, compares in constant time, tries every secret (so that one can be replaced by another
without a gap), and says why it failed only to us: the sender of a wrong signature learns nothing.

| scheme | header | signed | key |
|---|---|---|---|
| `standard` | `webhook-signature`, or `svix-signature`: `v1,<base64>` several by spaces | `<webhook-id>.<webhook-timestamp>.<body>` | base64 after `whsec_`, else the text |
| `github` | `X-Hub-Signature-256`: `sha256=<hex>` | body | the text |
| `stripe` | `Stripe-Signature`: `t=<seconds>,v1=<hex>` | `<t>.<body>` | the text, with its `whsec_` |
| `hmac` | any: `<hex>`, `<base64>`, or either after `sha256=` | body | the text |
| `bearer` | `Authorization`: `Bearer <secret>` | nothing | |

Sources: standardwebhooks.com (specification 1.0), docs.github.com "Validating webhook deliveries", docs.stripe.com
"Verify webhook signatures manually".
"""  # noqa: E501

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["standard", "github", "stripe", "hmac", "bearer"]
Problem = Literal["missing", "malformed", "stale", "mismatch"]
"""Why a signature is no good: no header; not in the scheme's form; too old or too new; made with another secret."""

_PREFIX = "whsec_"


def standard_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret. Raises ValueError if what follows `whsec_` is no base64."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    text = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("what follows whsec_ must be base64") from None
    if not key:
        raise ValueError("nothing follows whsec_")
    return key


def sign_standard(keys: Sequence[bytes], message_id: str, timestamp_seconds: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp_seconds, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks what one sender signs. Made once per configuration; safe from any thread."""

    scheme: Scheme
    secrets: tuple[str, ...]
    tolerance_seconds: float = 300.0
    """How far the time of a signature may be from ours; only `standard` and `stripe` sign a time."""
    signature_header: str = "x-signature-256"
    """Of the scheme `hmac`, in lower case."""

    def problem(self, headers: Mapping[str, str], body: bytes, now_seconds: float) -> Problem | None:
        """None if the request is genuine. `headers` has lower-case names."""
        return _CHECKS[self.scheme](self, headers, body, now_seconds)

    def problem_of_head(self, headers: Mapping[str, str], now_seconds: float) -> Problem | None:
        """What can be said before the body is there; None if the request may be genuine."""
        problem = self.problem(headers, b"", now_seconds)
        return problem if problem != "mismatch" or self.scheme == "bearer" else None

    def is_stale(self, timestamp: str, now_seconds: float) -> bool:
        return abs(now_seconds - int(timestamp)) > self.tolerance_seconds


def signature_headers(scheme: Scheme, signature_header: str) -> frozenset[str]:
    """The headers, in lower case, that prove who sent a request: not to be kept."""
    own = {"github": {"x-hub-signature-256", "x-hub-signature"}, "stripe": {"stripe-signature"}}
    return frozenset({"webhook-signature", "svix-signature", signature_header.lower(), *own.get(scheme, ())})


def standard_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request, in lower case, with the signed ones under their names in Standard Webhooks.

    Many senders still call them `svix-id` and so on. One set counts, never a mixture: what the other one says is not
    signed, and is left out. So is a name of the one set that is only there to be taken for the signed value.
    """
    if not any(name in headers for name in _SVIX):
        return headers
    if all(map(headers.get, _SVIX)) and not all(map(headers.get, _STANDARD)):
        return {**headers, **{new: headers[old] for new, old in zip(_STANDARD, _SVIX, strict=True)}}
    return {name: value for name, value in headers.items() if name not in _SVIX}


_STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
_SVIX = ("svix-id", "svix-timestamp", "svix-signature")


def _standard(verifier: Verifier, headers: Mapping[str, str], body: bytes, now: float) -> Problem | None:
    headers = standard_headers(headers)
    message_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    signatures = headers.get("webhook-signature")
    if not message_id or not timestamp or not signatures:
        return "missing"
    if not _is_seconds(timestamp):
        return "malformed"
    if verifier.is_stale(timestamp, now):
        return "stale"
    given = [_unbase64(part[3:]) for part in signatures.split(" ") if part.startswith("v1,")]
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    return _compare(given, [hmac.digest(standard_key(secret), signed, "sha256") for secret in verifier.secrets])


def _github(verifier: Verifier, headers: Mapping[str, str], body: bytes, _now: float) -> Problem | None:
    value = headers.get("x-hub-signature-256")
    if not value:
        return "missing"
    if not value.startswith("sha256="):
        return "malformed"
    return _compare([_unhex(value.removeprefix("sha256="))], _digests(verifier, body))


def _stripe(verifier: Verifier, headers: Mapping[str, str], body: bytes, now: float) -> Problem | None:
    value = headers.get("stripe-signature")
    if not value:
        return "missing"
    parts = [part.strip().partition("=") for part in value.split(",")]
    timestamp = next((text for name, _, text in parts if name == "t"), "")
    if not _is_seconds(timestamp):
        return "malformed"
    if verifier.is_stale(timestamp, now):
        return "stale"
    given = [_unhex(text) for name, _, text in parts if name == "v1"]
    return _compare(given, _digests(verifier, timestamp.encode() + b"." + body))


def _hmac(verifier: Verifier, headers: Mapping[str, str], body: bytes, _now: float) -> Problem | None:
    value = headers.get(verifier.signature_header)
    if not value:
        return "missing"
    text = value.strip().removeprefix("sha256=")
    return _compare([_unhex(text), _unbase64(text)], _digests(verifier, body))


def _bearer(verifier: Verifier, headers: Mapping[str, str], _body: bytes, _now: float) -> Problem | None:
    value = headers.get("authorization")
    if not value:
        return "missing"
    kind, _, token = value.partition(" ")
    if kind.lower() != "bearer":
        return "malformed"
    # Digests, because comparing texts of unequal length tells the length.
    given = hmac.digest(b"bearer", token.strip().encode(), "sha256")
    return _compare([given], [hmac.digest(b"bearer", secret.encode(), "sha256") for secret in verifier.secrets])


Check = Callable[[Verifier, Mapping[str, str], bytes, float], Problem | None]
_CHECKS: dict[Scheme, Check] = {
    "standard": _standard, "github": _github, "stripe": _stripe, "hmac": _hmac, "bearer": _bearer,
}  # fmt: skip


def _digests(verifier: Verifier, signed: bytes) -> list[bytes]:
    return [hmac.digest(secret.encode(), signed, "sha256") for secret in verifier.secrets]


def _compare(given: Sequence[bytes | None], expected: Sequence[bytes]) -> Problem | None:
    """No early end: how long it takes does not tell which of them was nearly right."""
    readable = [one for one in given if one]
    if not readable:
        return "malformed"
    # A sender may list several signatures; a long list would only make us work.
    matches = [hmac.compare_digest(one, own) for one in readable[:_MOST_SIGNATURES] for own in expected]
    return None if any(matches) else "mismatch"


_MOST_SIGNATURES = 16


def _is_seconds(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _unhex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
