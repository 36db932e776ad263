"""The envelope: an event goes through its wire form unchanged, and a wrong one is refused by the name of its attribute."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.errors import RejectedError
from state.model.event import Environment, Event, Op, from_cloudevent
from state.model.ids import EstateHash, EventId

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ids = st.binary(min_size=16, max_size=16).map(lambda raw: EventId(raw.hex()))
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(timezones=offsets)
attribute_names = st.from_regex(r"x[a-z0-9]{1,15}", fullmatch=True)
documents = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, max_size=4)

events = st.builds(
    Event,
    id=ids,
    source=texts,
    type=texts,
    subject=texts,
    time=instants,
    contract=texts,
    data=documents.map(orjson.dumps),
    partitionkey=texts,
    sequence=st.integers(0, 2**63 - 1),
    recordedtime=instants,
    correlationid=texts,
    causationid=st.none() | ids,
    traceparent=st.just("") | texts,
    site=texts,
    system=texts,
    flow=texts,
    op=st.sampled_from(Op),
    environment=st.sampled_from(Environment),
    estate=texts.map(EstateHash),
    place=st.just("") | texts,
    rawref=st.just("") | texts,
    extensions=st.dictionaries(attribute_names, texts, max_size=3),
)

EVENT = Event(
    id=EventId("0" * 32),
    source="/dc-north/planning",
    type="distctl.replenishment-recommendation.snapshot",
    subject="R-1",
    time=datetime(2026, 3, 2, 12, tzinfo=UTC),
    contract="replenishment-recommendation/1",
    data=b'{"reco_id":"R-1"}',
    partitionkey="R-1",
    sequence=1,
    recordedtime=datetime(2026, 3, 2, 12, tzinfo=UTC),
    correlationid="0" * 32,
    site="dc-north",
    system="planning",
    flow="recommendations",
    op=Op.SNAPSHOT,
    environment=Environment.TEST,
    estate=EstateHash("1" * 32),
)


@given(event=events)
def test_an_event_comes_back_from_the_wire_as_it_went(event: Event) -> None:
    assert from_cloudevent(orjson.loads(event.to_json())) == event


@given(event=events)
def test_the_wire_form_is_a_cloudevent(event: Event) -> None:
    attributes = orjson.loads(event.to_json())
    assert {"specversion", "id", "source", "type"} <= set(attributes)
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
    assert all(isinstance(value, str) for name, value in attributes.items() if name != "data")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("specversion", "0.3"),
        ("id", ""),
        ("subject", None),
        ("time", "yesterday"),
        ("time", "2026-03-02T12:00:00"),
        ("recordedtime", 1772452800),
        ("sequence", "-1"),
        ("sequence", "²"),
        ("op", "upsert"),
        ("environment", "staging"),
    ],
)
def test_a_wrong_attribute_is_named_with_its_rule(attribute: str, value: Any) -> None:
    attributes = {**orjson.loads(EVENT.to_json()), attribute: value}
    with pytest.raises(RejectedError) as caught:
        from_cloudevent(attributes)
    assert caught.value.place == attribute
    assert caught.value.rule
    assert caught.value.hint


@pytest.mark.parametrize("attribute", sorted(set(EVENT.to_cloudevent()) - {"data", "datacontenttype"}))
def test_a_missing_attribute_is_named(attribute: str) -> None:
    attributes = orjson.loads(EVENT.to_json())
    del attributes[attribute]
    with pytest.raises(RejectedError) as caught:
        from_cloudevent(attributes)
    assert caught.value.place == attribute
