"""References to secrets: resolved where they are used, and in no text afterwards."""

import json
import os

import pytest

from relay import known_secrets
from relay.errors import ConfigError
from relay.masking import mask
from relay.pipelines.secret_refs import resolve


@pytest.fixture(autouse=True)
def _nothing_remembered():
    known_secrets.forget_all()


def test_references_are_resolved_anywhere_in_the_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("TIDE_SECRET_NATS_USER", "relay")
    monkeypatch.setenv("TIDE_SECRET_NATS_PASSWORD", "s3cret-pw")
    key = tmp_path / "key"
    key.write_text("first\nsecond\n")
    assert resolve(
        {
            "url": "nats://${env:TIDE_SECRET_NATS_USER}:${env:TIDE_SECRET_NATS_PASSWORD}@host",
            "headers": {"X-Key": ["plain", f"key ${{file:{key}}}."]},
            "batch_size": 100,
            "tls": None,
            "ordered": True,
        }
    ) == {
        "url": "nats://relay:s3cret-pw@host",
        "headers": {"X-Key": ["plain", "key first\nsecond."]},
        "batch_size": 100,
        "tls": None,
        "ordered": True,
    }


def test_the_configuration_given_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("TIDE_SECRET_A", "value-of-a")
    config = {"a": {"b": ["${env:TIDE_SECRET_A}"]}}
    resolve(config)
    assert config == {"a": {"b": ["${env:TIDE_SECRET_A}"]}}


def test_an_escaped_reference_is_plain_text(monkeypatch):
    monkeypatch.setenv("TIDE_SECRET_A", "value-of-a")
    assert resolve({"a": "$${env:TIDE_SECRET_A} costs $5, ${env:TIDE_SECRET_A}, {outbox}"}) == {
        "a": "${env:TIDE_SECRET_A} costs $5, value-of-a, {outbox}"
    }


def test_a_value_is_not_searched_for_references(monkeypatch):
    monkeypatch.setenv("TIDE_SECRET_A", "${env:TIDE_SECRET_B}")
    assert resolve({"a": "${env:TIDE_SECRET_A}"}) == {"a": "${env:TIDE_SECRET_B}"}


def test_a_missing_variable_names_key_and_reference(monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError, match=r"servers\[1\]\.url: \$\{env:TIDE_SECRET_NOT_THERE\}"):
        resolve({"servers": [{}, {"url": "x${env:TIDE_SECRET_NOT_THERE}"}]})


def test_files_that_cannot_be_used_name_key_and_reference(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * (64 * 1024 + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "missing": "No such file",
        "large": "larger than",
        "binary": "not UTF-8",
        "pipe": "not a file",
        ".": "directory",
    }.items():
        with pytest.raises(ConfigError, match=rf"password: \$\{{file:.*\}}: .*{reason}") as caught:
            resolve({"password": "${file:%s}" % (tmp_path / name)})
        assert caught.value.__cause__ is None


def test_the_largest_file_is_taken_and_loses_one_newline_only(tmp_path):
    file = tmp_path / "file"
    file.write_text("x" * (64 * 1024 - 2) + "\n\n")
    assert resolve({"a": f"${{file:{file}}}"}) == {"a": "x" * (64 * 1024 - 2) + "\n"}


@pytest.mark.parametrize(("value", "expected"), [("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), ("\ns", "\ns")])
def test_a_variable_loses_one_newline_too(monkeypatch, value, expected):
    monkeypatch.setenv("TIDE_SECRET_A", value)
    assert resolve({"a": "x${env:TIDE_SECRET_A}"}) == {"a": f"x{expected}"}


@pytest.mark.parametrize("text", ["${ENV:A}", "${A}", "${vault:a/b}", "${env:}", "${", "pw${never-shown"])
def test_what_looks_like_a_reference_and_is_none_is_refused_without_being_shown(text):
    with pytest.raises(ConfigError, match=r"password: .*'\$\{' is not (a reference|closed)") as caught:
        resolve({"password": text})
    assert "never-shown" not in str(caught.value)


def test_a_resolved_value_is_masked_in_every_form(monkeypatch):
    value = 'p@ss/word "quoted"\nanother line'
    monkeypatch.setenv("TIDE_SECRET_A", value)
    resolve({"a": "${env:TIDE_SECRET_A}"})
    assert mask(f"login with {value} failed") == "login with *** failed"
    assert mask("nats://u:p%40ss%2Fword%20%22quoted%22%0Aanother%20line@h") == "nats://u:***@h"
    assert json.loads(mask(json.dumps({"a": value}))) == {"a": "***"}
    assert mask("at 'another line' of the key") == "at '***' of the key"
