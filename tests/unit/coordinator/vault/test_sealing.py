"""Sealed texts open for what they were sealed for, and for nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domains.vault import sealing
from coordinator.domains.vault.sealing import Master, SealBroken

KEY = sealing.new_data_key()
MASTER = Master.of("the master key of these tests")


@given(st.binary(max_size=200), st.text(max_size=40))
def test_what_was_sealed_comes_out_again(plaintext: bytes, subject: str) -> None:
    text = sealing.close(KEY, "seed", subject, plaintext)
    assert sealing.open_(KEY, "seed", subject, text) == plaintext


def test_the_same_secret_never_looks_the_same() -> None:
    assert sealing.close(KEY, "seed", "a", b"x") != sealing.close(KEY, "seed", "a", b"x")


@pytest.mark.parametrize(
    ("purpose", "subject", "key"),
    [("seed", "b", KEY), ("other", "a", KEY), ("seed", "a", sealing.new_data_key())],
    ids=["another row", "another purpose", "another key"],
)
def test_a_text_opens_nowhere_else(purpose: str, subject: str, key: bytes) -> None:
    text = sealing.close(KEY, "seed", "a", b"secret")
    with pytest.raises(SealBroken):
        sealing.open_(key, purpose, subject, text)


def test_every_changed_byte_is_noticed() -> None:
    text = sealing.close(KEY, "seed", "a", b"secret")
    raw = bytearray(base64.urlsafe_b64decode(text.removeprefix("v1.")))
    for place in range(len(raw)):
        changed = bytes(byte ^ (1 if at == place else 0) for at, byte in enumerate(raw))
        with pytest.raises(SealBroken):
            sealing.open_(KEY, "seed", "a", "v1." + base64.urlsafe_b64encode(changed).decode())


@pytest.mark.parametrize("text", ["", "v1.", "v1.AAAA", "v2.AAAA", "v1.not base64!", "secret"])
def test_what_is_no_sealed_text_is_called_broken(text: str) -> None:
    with pytest.raises(SealBroken):
        sealing.open_(KEY, "seed", "a", text)


@pytest.mark.parametrize("purpose", ["", "Seed", "seed\0a", "data_key", "a b"])
def test_a_purpose_is_a_plain_word_and_not_that_of_data_keys(purpose: str) -> None:
    with pytest.raises(ValueError, match="is no purpose"):
        sealing.close(KEY, purpose, "a", b"secret")


def test_a_wrapped_data_key_belongs_to_its_row() -> None:
    wrapped = sealing.wrap(MASTER, "one", KEY)
    assert sealing.unwrap(MASTER, "one", wrapped) == KEY
    with pytest.raises(SealBroken):
        sealing.unwrap(MASTER, "two", wrapped)
    with pytest.raises(SealBroken):
        sealing.unwrap(Master.of("another"), "one", wrapped)


def test_a_master_key_shows_a_fingerprint_and_not_itself() -> None:
    assert Master.of("a").fingerprint != Master.of("b").fingerprint
    assert MASTER.key.hex() not in repr(MASTER) + MASTER.fingerprint
    assert len(MASTER.fingerprint) == 64
