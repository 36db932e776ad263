"""The envelope: an event goes through its wire form unchanged, and a wrong one is refused by the name of its attribute."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model.errors import RejectedError
from state.model.event import Environment, Event, Op, from_cloudevent, of_attributes
from state.model.ids import EstateHash, EventId

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ids = st.binary(min_size=16, max_size=16).map(lambda raw: EventId(raw.hex()))
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(timezones=offsets).filter(lambda moment: 1 < moment.year < 9999)
attribute_names = st.from_regex(r"x[a-z0-9]{1,15}", fullmatch=True) | st.just("size")
attribute_values = texts | st.just("") | st.booleans() | st.integers(-(2**31), 2**31 - 1)
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
    correlationid=ids,
    causationid=st.none() | ids,
    traceparent=st.just("") | texts,
    site=texts,
    system=texts,
    flow=texts,
    op=st.sampled_from(Op),
    environment=st.sampled_from(Environment),
    estate=ids.map(EstateHash),
    place=st.just("") | texts,
    rawref=st.just("") | hashes,
    extensions=st.dictionaries(attribute_names, attribute_values, max_size=3),
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
    assert all(isinstance(value, str | int | bool) for name, value in attributes.items() if name != "data")


@given(event=events)
def test_an_event_comes_back_from_its_attributes_with_its_data_byte_for_byte(event: Event) -> None:
    attributes = orjson.loads(orjson.dumps(event.attributes()))
    again = of_attributes(attributes, b" " + event.data + b"\n")
    assert again == replace(event, data=b" " + event.data + b"\n")
    assert {name: type(value) for name, value in again.extensions.items()} == {
        name: type(value) for name, value in event.extensions.items()
    }


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("specversion", "0.3"),
        ("id", ""),
        ("id", "0" * 31),
        ("id", "0" * 32 + "\n"),
        ("id", "A" * 32),
        ("id", "\u0660" * 32),
        ("correlationid", "PO-4711"),
        ("causationid", "g" * 32),
        ("causationid", None),
        ("causationid", ""),
        ("estate", 7),
        ("rawref", "0" * 32),
        ("traceparent", 1),
        ("place", ["plan.csv"]),
        ("datacontenttype", "application/xml"),
        ("subject", None),
        ("time", "yesterday"),
        ("time", "2026-03-02T12:00:00"),
        ("time", "0001-01-01T00:00:00+01:00"),
        ("time", "9999-12-31T23:59:59-01:00"),
        ("recordedtime", 1772452800),
        ("recordedtime", "9999-12-31T23:59:59.999999+00:00"),
        ("sequence", "-1"),
        ("sequence", "²"),
        ("sequence", str(2**63)),
        ("sequence", "9" * 5000),
        ("op", "upsert"),
        ("environment", "staging"),
        ("environment", ["test"]),
        ("priority", {"of": "us"}),
        ("priority", [1]),
        ("priority", 0.5),
        ("priority", None),
        ("priority", 2**31),
        ("priority", -(2**31) - 1),
        ("Priority", "high"),
        ("data_base64", "e30="),
        ("a" * 21, "high"),
        ("", "high"),
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


def test_what_stands_in_the_name_of_an_attribute_obeys_no_terminal() -> None:
    with pytest.raises(RejectedError) as caught:
        of_attributes({**EVENT.attributes(), "\x1b[2J" * 50: "x"}, EVENT.data)
    assert caught.value.place.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("data", [b"", b"{", b"{} {}", b"\xff", b'"\\ud800"', b"NaN", b"[" * 10_000])
def test_data_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        of_attributes(EVENT.attributes(), data)
    assert caught.value.place == "data"


def test_data_is_no_attribute() -> None:
    with pytest.raises(RejectedError) as caught:
        of_attributes({**EVENT.attributes(), "data": "{}"}, EVENT.data)
    assert caught.value.place == "data"


def test_a_document_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        from_cloudevent({**EVENT.attributes(), "data": 2**70})
    assert caught.value.place == "data"


def test_the_last_day_of_the_calendar_is_a_time_like_any_other() -> None:
    assert of_attributes({**EVENT.attributes(), "time": "9999-12-31T00:00:00+00:00"}, EVENT.data).time.year == 9999
