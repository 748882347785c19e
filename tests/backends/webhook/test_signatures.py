"""Signatures of webhooks, against readers and examples that are not ours."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from relay.backends.webhook.signatures import (
    Problem,
    Scheme,
    Verifier,
    sign_standard,
    signature_headers,
    standard_headers,
    standard_key,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"test": "ü"}'.encode()
NOW = 1_700_000_000.0


def standard(body: bytes = BODY, seconds: float = NOW, secret: str = SECRET) -> dict[str, str]:
    """What the package `standardwebhooks` signs."""
    moment = datetime.fromtimestamp(seconds, UTC)
    signature = Webhook(secret).sign("msg_1", moment, body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(seconds)), "webhook-signature": signature}


def stripe(body: bytes = BODY, seconds: float = NOW, secret: str = SECRET) -> dict[str, str]:
    """By docs.stripe.com: HMAC-SHA256 of `{t}.{body}` with the whole text of the secret."""
    signed = f"{int(seconds)}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={int(seconds)},v1={digest},v0=6ffbb59b2300"}


def generic(text: str) -> dict[str, str]:
    return {"x-signature-256": text}


DIGEST = hmac.new(SECRET.encode(), BODY, hashlib.sha256)


def problem(scheme: Scheme, headers: dict[str, str], body: bytes = BODY, *secrets: str) -> Problem | None:
    return Verifier(scheme, secrets or (SECRET,)).problem(headers, body, NOW)


class TestGenuine:
    def test_standard(self) -> None:
        assert problem("standard", standard()) is None

    def test_the_example_of_the_specification_of_standard_webhooks(self) -> None:
        body = b'{"event_type":"ping","data":{"success":true}}'
        moment = 1_731_705_121
        headers = {
            "webhook-id": "msg_loFOjxBNrRLzqYUf",
            "webhook-timestamp": str(moment),
            "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        }
        secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
        assert Verifier("standard", (secret,)).problem(headers, body, moment) is None

    def test_the_example_of_githubs_documentation(self) -> None:
        value = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        headers = {"x-hub-signature-256": value}
        assert problem("github", headers, b"Hello, World!", "It's a Secret to Everybody") is None

    def test_stripe(self) -> None:
        assert problem("stripe", stripe()) is None

    @pytest.mark.parametrize("prefix", ["", "sha256="])
    @pytest.mark.parametrize("text", [DIGEST.hexdigest(), base64.b64encode(DIGEST.digest()).decode()])
    def test_hmac_in_hex_and_base64(self, prefix: str, text: str) -> None:
        assert problem("hmac", generic(prefix + text)) is None

    def test_hmac_in_a_header_of_ones_own(self) -> None:
        verifier = Verifier("hmac", (SECRET,), signature_header="x-shop-hmac")
        assert verifier.problem({"x-shop-hmac": DIGEST.hexdigest()}, BODY, NOW) is None

    @pytest.mark.parametrize("word", ["Bearer", "bearer"])
    def test_bearer(self, word: str) -> None:
        assert problem("bearer", {"authorization": f"{word} {SECRET}"}) is None

    @pytest.mark.parametrize("scheme", ["standard", "stripe"])
    def test_by_either_secret_while_one_replaces_the_other(self, scheme: Scheme) -> None:
        signed = {"standard": standard, "stripe": stripe}[scheme]()
        assert problem(scheme, signed, BODY, "whsec_b3RoZXI=", SECRET) is None

    def test_one_of_several_signatures(self) -> None:
        headers = standard()
        other = "v1," + base64.b64encode(b"x" * 32).decode()
        headers["webhook-signature"] = f"v1a,whatever {other} {headers['webhook-signature']}"
        assert problem("standard", headers) is None


def older(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("webhook-", "svix-"): value for name, value in headers.items()}


class TestTheOlderNames:
    def test_are_those_of_standard_webhooks(self) -> None:
        assert problem("standard", older(standard())) is None
        assert problem("standard", older(standard()), BODY + b" ") == "mismatch"
        assert problem("standard", older(standard(seconds=NOW - 301))) == "stale"

    @pytest.mark.parametrize("name", ["svix-id", "svix-timestamp", "svix-signature"])
    def test_need_all_three(self, name: str) -> None:
        headers = older(standard())
        del headers[name]
        assert problem("standard", headers) == "missing"

    @pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
    def test_are_not_mixed_with_the_present_ones(self, name: str) -> None:
        mixed = {key.replace("webhook-", "svix-") if name in key else key: value for key, value in standard().items()}
        assert problem("standard", mixed) == "missing"

    def test_count_where_the_present_ones_are_not_whole_and_only_there(self) -> None:
        forged = {name: f"{value}x" for name, value in standard().items()}
        assert problem("standard", older(standard()) | forged) == "malformed"
        assert problem("standard", older(forged) | standard()) is None
        assert problem("standard", older(standard()) | {"webhook-id": "forged"}) is None

    def test_become_the_present_ones_and_nothing_that_is_not_signed_keeps_a_name_of_either(self) -> None:
        signed = standard()
        assert standard_headers(older(signed) | {"webhook-id": "forged"}) == older(signed) | signed
        assert standard_headers(signed | {"svix-id": "forged", "a": "b"}) == signed | {"a": "b"}
        assert standard_headers(signed) == signed


class TestForged:
    @pytest.mark.parametrize(
        ("scheme", "headers"),
        [
            ("standard", standard()),
            ("stripe", stripe()),
            ("github", {"x-hub-signature-256": "sha256=" + DIGEST.hexdigest()}),
            ("hmac", generic(DIGEST.hexdigest())),
        ],
    )
    def test_any_other_body_or_secret_is_a_mismatch(self, scheme: Scheme, headers: dict[str, str]) -> None:
        assert problem(scheme, headers) is None
        assert problem(scheme, headers, BODY + b" ") == "mismatch"
        assert problem(scheme, headers, BODY, "whsec_b3RoZXI=") == "mismatch"

    @pytest.mark.parametrize("scheme", ["standard", "stripe", "github", "hmac", "bearer"])
    def test_none_at_all_is_missing(self, scheme: Scheme) -> None:
        assert problem(scheme, {}) == "missing"

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_standard_needs_all_three(self, name: str) -> None:
        headers = standard()
        del headers[name]
        assert problem("standard", headers) == "missing"

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
    def test_standard_signs_id_and_time(self, name: str) -> None:
        assert problem("standard", standard() | {name: str(int(NOW) + 1)}) == "mismatch"

    @pytest.mark.parametrize("seconds", [-301, 301])
    @pytest.mark.parametrize("scheme", ["standard", "stripe"])
    def test_what_is_too_old_or_too_new_is_stale(self, scheme: Scheme, seconds: int) -> None:
        signed = {"standard": standard, "stripe": stripe}[scheme]
        assert problem(scheme, signed(seconds=NOW + seconds)) == "stale"
        assert problem(scheme, signed(seconds=NOW + seconds * 299 // 301)) is None

    @pytest.mark.parametrize(
        ("scheme", "headers"),
        [
            ("standard", standard() | {"webhook-timestamp": "soon"}),
            ("standard", standard() | {"webhook-timestamp": "١٧"}),
            ("standard", standard() | {"webhook-signature": "v2,abc"}),
            ("standard", standard() | {"webhook-signature": "v1,"}),
            ("standard", standard() | {"webhook-signature": "v1,é"}),
            ("stripe", {"stripe-signature": "t=now,v1=00"}),
            ("stripe", {"stripe-signature": f"t={int(NOW)}"}),
            ("stripe", {"stripe-signature": f"t={int(NOW)},v1="}),
            ("github", {"x-hub-signature-256": "sha1=00"}),
            ("github", {"x-hub-signature-256": "sha256="}),
            ("github", {"x-hub-signature-256": "sha256=zz"}),
            ("hmac", generic("é")),
            ("bearer", {"authorization": f"Basic {SECRET}"}),
            ("bearer", {"authorization": SECRET}),
        ],
    )
    def test_what_is_not_in_the_schemes_form_is_malformed(self, scheme: Scheme, headers: dict[str, str]) -> None:
        assert problem(scheme, headers) == "malformed"

    @pytest.mark.parametrize("token", ["", "x", SECRET + "x", SECRET[:-1]])
    def test_another_token_is_a_mismatch(self, token: str) -> None:
        assert problem("bearer", {"authorization": f"Bearer {token}"}) == "mismatch"


class TestSecrets:
    def test_are_base64_after_their_prefix_and_text_without(self) -> None:
        assert standard_key("whsec_dGV4dA==") == standard_key("whsec_dGV4dA") == standard_key("text") == b"text"

    @pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64", "whsec_ü"])
    def test_that_are_none_are_refused_without_being_shown(self, secret: str) -> None:
        with pytest.raises(ValueError, match="whsec_") as caught:
            standard_key(secret)
        assert secret == "whsec_" or secret not in str(caught.value)

    def test_sign_several_signatures_at_once(self) -> None:
        keys = [standard_key(SECRET), b"other"]
        headers = standard() | {"webhook-signature": sign_standard(keys, "msg_1", int(NOW), BODY)}
        assert headers["webhook-signature"].split(" ")[0] == standard()["webhook-signature"]
        assert problem("standard", headers, BODY, "other") is None


def test_the_headers_that_prove_a_sender_are_named() -> None:
    assert {"webhook-signature", "stripe-signature"} <= signature_headers("stripe", "X-Sig")
    assert "x-sig" in signature_headers("hmac", "X-Sig")
