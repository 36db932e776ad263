"""Ids: the same reading makes the same id for ever, and whatever differs makes another."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.ids import event_id

READING = {"source": "/north/planning", "flow": "orders", "batch": "b" * 64, "position": "12", "key": "PO-1"}


def test_an_id_is_what_it_was_in_every_version() -> None:
    assert event_id(**READING, content=b"{}") == "0bf917248f03b80be68389fe3390d53b"


@pytest.mark.parametrize("name", READING)
def test_whatever_differs_makes_another_id(name: str) -> None:
    first = event_id(**READING, content=b"{}")
    assert event_id(**{**READING, name: READING[name] + "2"}, content=b"{}") != first
    assert event_id(**READING, content=b"{} ") != first
    assert event_id(**READING, content=b"{}") == first  # whichever was made before


@given(batches=st.lists(st.sampled_from("abc"), max_size=6), key=st.text(max_size=5), content=st.binary(max_size=20))
def test_batches_that_take_turns_make_the_ids_that_each_makes_alone(
    batches: list[str], key: str, content: bytes
) -> None:
    for batch in batches:
        made = event_id(source="s", flow="f", batch=batch, position="1", key=key, content=content)
        assert made == alone("s", "f", batch, size=4) + alone("s", "f", batch, "1", key, content, size=12)


def alone(*parts: str | bytes, size: int) -> str:
    raw = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    joined = b"".join(b"%d\x1f%b" % (len(part), part) for part in raw)
    return hashlib.blake2b(joined, digest_size=size).hexdigest()
