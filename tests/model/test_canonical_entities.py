"""Every canonical entity: what is valid survives writing and reading, what is not is refused with place, rule and cure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.model.canonical.entity import joined_key
from state.model.canonical.purchase_order import PurchaseOrder
from state.model.canonical.reading import parse, references_in
from state.model.canonical.registry import ENTITIES, entity_type
from state.model.canonical.writing import to_json_bytes, to_record
from state.model.errors import ConfigError, RejectedError
from state.model.identifiers import Identifier, check_digit
from state.model.money import MINOR_DIGITS, Money, UnitPrice, total_of
from state.model.quantity import UNITS, Quantity

Record = dict[str, Any]

codes = st.text(st.sampled_from("ABZ019-_/%. äß寸"), min_size=1, max_size=12).filter(
    lambda code: code.strip() == code and "  " not in code
)
texts = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=30).filter(
    lambda one: one.strip() == one
)
days = st.dates(date(1900, 1, 1), date(9999, 12, 31))
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(1900, 1, 2), datetime(9998, 12, 30), timezones=offsets)  # noqa: DTZ001  # the bounds are naive
counts = st.integers(0, 999_999_999)
flags = st.booleans()
positives = st.decimals(Decimal("0.001"), 10**6, places=3)
decimals = st.decimals(0, 10**6, places=3)
currencies = st.sampled_from(sorted(MINOR_DIGITS))
units = st.sampled_from(sorted(UNITS))
ext = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


def words(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


def record(mandatory: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries(dict(mandatory), optional={"ext": ext, **(optional or {})})


def quantity(unit: str, values: st.SearchStrategy[Decimal] = positives) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries({"value": values, "unit": st.just(unit)})


@st.composite
def packed(draw: st.DrawFn) -> Record:
    value, factor = draw(st.integers(1, 1000)), draw(st.integers(1, 500))
    return {"value": value, "unit": "CS", "base_value": str(value * factor), "base_unit": "EA", "pack_factor": factor}


def price(currency: str) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries(
        {"amount": st.decimals(0, 10**4, places=4), "currency": st.just(currency)}, optional={"per": words("1", "100")}
    )


def ordered(draw: st.DrawFn, *names: str) -> Record:
    return dict(zip(names, sorted(draw(st.lists(days, min_size=len(names), max_size=len(names)))), strict=True))


gtins = st.text("0123456789", min_size=13, max_size=13).map(lambda body: f"{body}{check_digit(body)}")
glns = st.text("0123456789", min_size=12, max_size=12).map(lambda body: f"{body}{check_digit(body)}")
addresses = record(
    {"city": texts, "country": words("FR", "DE", "US")},
    {"lines": st.lists(texts, max_size=3), "postal_code": codes, "region": texts},
)
identifiers = st.lists(
    st.one_of(
        st.fixed_dictionaries({"scheme": st.just("gln"), "value": glns}),
        st.fixed_dictionaries({"scheme": st.just("vendor_part"), "value": codes}, optional={"issuer": codes}),
    ),
    max_size=3,
    unique_by=lambda one: (one["scheme"], one["value"]),
)


@st.composite
def products(draw: st.DrawFn) -> Record:
    levels = draw(st.lists(words("each", "inner", "case", "pallet"), unique=True))
    factors = sorted(draw(st.lists(positives, min_size=4, max_size=4)))
    rank = ("each", "inner", "case", "pallet")
    optional = {"gtin": gtins, "gross_weight": quantity("KGM"), "length": quantity("MMT"), "height": quantity("INH")}
    packs = [
        draw(record({"level": st.just(one), "unit": units, "factor": st.just(factors[rank.index(one)])}, optional))
        for one in levels
    ]
    known = draw(
        record(
            {"sku": codes, "description": texts, "status": words("active"), "base_unit": units, "packs": st.just(packs)},
            {"gtin": gtins, "identifiers": identifiers, "lot_tracked": flags, "category": codes, "standard_cost": price("EUR"),
             "expiry_tracked": flags, "hazard_class": codes},
        )
    )  # fmt: skip
    return known | ordered(draw, "valid_from", "valid_to") | {"shelf_life_days": draw(counts)}


locations = record(
    {"loc": codes.map("L-{}".format), "name": texts, "type": words("site", "bin"), "active": flags,
     "timezone": words("UTC", "Europe/Paris", "America/Argentina/Buenos_Aires", "Etc/GMT+5")},
    {"gln": glns, "address": addresses, "calendar": codes, "parent": codes.map("P-{}".format),
     "roles": st.dictionaries(codes, codes, max_size=3)},
)  # fmt: skip
profiles = record({"standard": words("x12"), "syntax_version": codes, "identity": codes}, {"order_ack_hours": counts})
parties = record(
    {"party": codes, "legal_name": texts, "roles": st.lists(words("SU", "BY"), min_size=1), "status": words("active")},
    {"identifiers": identifiers, "address": addresses, "currency": currencies, "terms": texts, "incoterm": words("DAP", "FCA"),
     "edi": st.lists(profiles, max_size=2)},
)  # fmt: skip


@st.composite
def item_suppliers(draw: st.DrawFn) -> Record:
    unit, (low, high) = draw(units), sorted(draw(st.lists(positives, min_size=2, max_size=2)))
    steps = sorted(draw(st.lists(positives, max_size=3, unique=True)))
    breaks = [{"from_quantity": {"value": step, "unit": unit}, "price": draw(price("EUR"))} for step in steps]
    known = draw(
        record(
            {"sku": codes, "party": codes, "order_unit": st.just(unit), "lead_time_days": decimals, "breaks": st.just(breaks)},
            {"loc": codes, "cost": price("EUR"), "priority": counts, "share_percent": st.integers(0, 100),
             "minimum_quantity": quantity(unit, st.just(low)), "maximum_quantity": quantity(unit, st.just(high))},
        )
    )  # fmt: skip
    return known | ordered(draw, "valid_from", "valid_to")


@st.composite
def forecasts(draw: st.DrawFn) -> Record:
    known = draw(
        record(
            {"sku": codes, "loc": codes, "quantity": quantity("EA", decimals), "type": words("firm", "planned"),
             "measure": words("baseline", "override", "consensus"), "forecast_version": codes, "created_at": instants},
            {"customer": codes, "model": codes},
        )
    )  # fmt: skip
    if known["measure"] == "override":
        known["override"] = draw(record({"owner": codes, "reason": texts, "expires": days}))
    return known | ordered(draw, "bucket_start", "bucket_end") | ordered(draw, "horizon_start", "horizon_end")


@st.composite
def recommendations(draw: st.DrawFn) -> Record:
    known = draw(
        record(
            {"reco_id": codes, "type": words("buy", "transfer"), "status": words("proposed", "closed"), "sku": codes,
             "to_loc": codes.map("T-{}".format), "quantity": st.one_of(packed(), quantity("EA"))},
            {"revision": counts, "unit_cost": price("EUR"), "reason": texts, "criticality": decimals, "expires_at": instants,
             "constraints": st.lists(codes, max_size=2), "days_of_cover": st.decimals(-100, 100, places=1),
             "policy": record({}, {"on_hand": quantity("EA", st.decimals(-9, 9, places=1)), "safety_stock": quantity("EA")})},
        )
    )  # fmt: skip
    origin = {"supplier": draw(codes)} if known["type"] == "buy" else {"from_loc": f"F-{draw(codes)}"}
    return known | origin | ordered(draw, "order_date", "need_date")


def total(lines: list[Record], currency: str) -> Record:
    def money(line: Record) -> Money:
        cost = line["price"]
        counted = Quantity.of(line["quantity"]["value"], line["quantity"]["unit"])
        return UnitPrice.of(cost["amount"], currency, per=cost.get("per", 1)).times(counted)

    return {"amount": total_of(map(money, lines), currency).amount, "currency": currency}


@st.composite
def purchase_orders(draw: st.DrawFn) -> Record:
    currency, dates = draw(currencies), ordered(draw, "order_date", "requested_ship_date", "requested_delivery_date")
    numbers = draw(st.lists(counts, min_size=1, max_size=4, unique=True))
    needed = st.dates(dates["order_date"], date(9999, 12, 31))
    optional = {
        "gtin": gtins,
        "vendor_part": codes,
        "need_date": needed,
        "reco_id": codes,
        "status": words("open", "closed"),
    }
    lines = [
        draw(
            record(
                {"line_no": st.just(n), "sku": codes, "price": price(currency), "quantity": quantity("EA")}, optional
            )
        )
        for n in numbers
    ]
    known = draw(
        record(
            {"po_no": codes, "purpose": words("original", "change", "cancel"), "buyer": codes, "supplier": codes,
             "ship_to": codes, "currency": st.just(currency), "lines": st.just(lines), "total": st.just(total(lines, currency))},
            {"type": words("blanket"), "revision": counts, "bill_to": codes, "terms": texts, "incoterm": words("FOB"),
             "approval": record({"hash": st.just("0a" * 32), "by": codes, "at": instants})},
        )
    )  # fmt: skip
    return known | dates


@st.composite
def acknowledgements(draw: st.DrawFn) -> Record:
    kind = draw(words("accepted", "accepted_with_changes", "rejected"))
    numbers = draw(st.lists(counts, min_size=2, max_size=4, unique=True))
    answer = {"accepted": "accepted", "rejected": "rejected", "accepted_with_changes": "quantity_changed"}[kind]
    full = {"status": st.just(answer), "quantity": quantity("EA", decimals), "reason": texts}
    lines = [
        draw(record({"line_no": st.just(n), **full}, {"promised_date": days, "price": price("EUR")})) for n in numbers
    ]
    return draw(
        record(
            {"po_no": codes, "ack_type": st.just(kind), "ack_date": days, "lines": st.just(lines)},
            {"po_date": days, "po_revision": counts, "supplier": codes, "supplier_reference": codes, "reason": texts},
        )
    )


inventory_balances = units.flatmap(
    lambda unit: record(
        {"sku": codes, "loc": codes, "owner": codes, "status": words("available", "quality"), "as_of": instants,
         "snapshot_sequence": counts, "is_full_snapshot": flags, "source_system": codes, "on_hand": quantity(unit, decimals)},
        {"lot": codes, "allocated": quantity(unit), "in_transit": quantity(unit), "expiry_date": days,
         "available_to_promise": quantity(unit, st.decimals(-99, 99, places=2))},
    )
)  # fmt: skip


@st.composite
def sales_orders(draw: st.DrawFn) -> Record:
    currency, dates = draw(currencies), ordered(draw, "order_date", "promised_ship_date", "promised_delivery_date")
    numbers = draw(st.lists(counts, min_size=1, max_size=4, unique=True))
    optional = {
        "shipped": quantity("EA", st.just(Decimal("0.001"))),
        "partial_allowed": flags,
        "substitute_rule": words("ask"),
    }
    lines = [
        draw(
            record(
                {"line_no": st.just(n), "sku": codes, "price": price(currency), "quantity": quantity("EA")}, optional
            )
        )
        for n in numbers
    ]
    known = draw(
        record(
            {"so_no": codes, "channel": codes, "customer": codes, "ship_to": codes, "currency": st.just(currency),
             "status": words("open", "held"), "lines": st.just(lines), "total": st.just(total(lines, currency))},
            {"channel_order_id": codes, "customer_po": codes, "priority": counts, "cut_off_at": instants},
        )
    )  # fmt: skip
    return known | dates


RECORDS: dict[str, st.SearchStrategy[Record]] = {
    "product/1": products(),
    "location/1": locations,
    "party/1": parties,
    "item-supplier/1": item_suppliers(),
    "forecast/1": forecasts(),
    "replenishment-recommendation/1": recommendations(),
    "purchase-order/1": purchase_orders(),
    "order-acknowledgement/1": acknowledgements(),
    "inventory-balance/1": inventory_balances,
    "sales-order/1": sales_orders(),
}


def test_every_entity_is_tried_here() -> None:
    assert RECORDS.keys() == ENTITIES.keys()


@pytest.mark.parametrize("contract", sorted(RECORDS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_accepted_reads_back_equal_and_writes_the_same_bytes(contract: str, data: st.DataObject) -> None:
    entity = parse(contract, data.draw(RECORDS[contract]))
    written = to_json_bytes(entity)
    again = parse(contract, written)
    assert again == entity
    assert to_json_bytes(again) == written
    assert parse(contract, to_record(entity)) == entity
    assert again.business_key == entity.business_key != ""
    assert b"E+" not in orjson.dumps([value for value in to_record(entity).values() if isinstance(value, str)])


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.decimals(), st.text(st.characters(codec=None)), st.binary(),
    st.dates(), st.datetimes(), st.datetimes(timezones=st.timezones()), st.lists(st.integers(), max_size=2),
    st.sets(st.integers()), st.sampled_from(["1_000", "\u0661\u0662", "1e3", "-0", " x", "x\x00", "\ud800", "NaN", "KG"]),
    st.sampled_from(["2026-02-30", "0001-01-01", "9999-12-31", "2026-03-02T24:00Z", "2026-03-02T23:59:60Z"]),
)  # fmt: skip


@pytest.mark.parametrize("contract", sorted(RECORDS))
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_what_a_document_names_is_found_in_its_bytes_too(contract: str, data: st.DataObject) -> None:
    entity = parse(contract, data.draw(RECORDS[contract]))
    assert references_in(contract, to_json_bytes(entity)) == entity.references()


def test_an_order_names_the_recommendation_of_each_line_once() -> None:
    lines = [{"reco_id": code} for code in ("R-2", "R-1", "R-2", None)]
    found = references_in("purchase-order/1", orjson.dumps({"lines": [*lines, "spoiled", {}]}))
    assert found == (("replenishment-recommendation", "R-2"), ("replenishment-recommendation", "R-1"))


@pytest.mark.parametrize(
    "raw", [b"{", b'{"customer_po": 4711}', b'{"customer_po": "4711 "}', b'{"customer_po": "\\u001b[2J"}']
)
def test_a_document_that_names_no_code_names_nothing(raw: bytes) -> None:
    with pytest.raises(RejectedError):
        references_in("sales-order/1", raw)


def spoil(record: Any, path: list[int], leaf: Any) -> Any:
    """`record` with the value at some path replaced."""
    if not path or not isinstance(record, dict | list) or not record:
        return leaf
    if isinstance(record, list):
        place: Any = path[0] % len(record)
        return [spoil(one, path[1:], leaf) if at == place else one for at, one in enumerate(record)]
    place = sorted(record)[path[0] % len(record)]
    return {name: spoil(one, path[1:], leaf) if name == place else one for name, one in record.items()}


@pytest.mark.parametrize("contract", sorted(RECORDS))
@settings(max_examples=60, deadline=None)
@given(data=st.data(), path=st.lists(st.integers(0, 50), min_size=1, max_size=4), leaf=leaves)
def test_a_spoiled_record_is_refused_or_can_be_written_back(
    contract: str, data: st.DataObject, path: list[int], leaf: Any
) -> None:
    spoiled = spoil(data.draw(RECORDS[contract]), path, leaf)
    try:
        entity = parse(contract, spoiled)
    except RejectedError as error:
        refusal = error
    else:
        assert parse(contract, to_json_bytes(entity)) == entity
        return
    assert all((refusal.rule, refusal.hint, refusal.code))
    assert str(refusal).isprintable()
    assert len(refusal.shown) <= 80


ORDER: Record = {
    "po_no": "PO-4711",
    "purpose": "original",
    "order_date": "2026-03-02",
    "buyer": "ACME",
    "supplier": "V-1",
    "ship_to": "LYON",
    "currency": "EUR",
    "total": {"amount": "20.50", "currency": "EUR"},
    "lines": [
        {
            "line_no": 1,
            "sku": "S-1",
            "quantity": {"value": "10", "unit": "EA"},
            "price": {"amount": "1.25", "currency": "EUR"},
        },
        {
            "line_no": 2,
            "sku": "S-2",
            "quantity": {"value": "4", "unit": "KGM"},
            "price": {"amount": "2", "currency": "EUR"},
        },
    ],
}
RECOMMENDATION: Record = {
    "reco_id": "R-1",
    "type": "buy",
    "status": "proposed",
    "sku": "S-1",
    "supplier": "V-1",
    "to_loc": "LYON",
    "quantity": {"value": "12", "unit": "EA"},
    "order_date": "2026-03-02",
    "need_date": "2026-03-09",
}
ANSWER: Record = {
    "po_no": "PO-4711",
    "ack_type": "accepted_with_changes",
    "ack_date": "2026-03-03",
    "lines": [{"line_no": 1, "status": "accepted"}, {"line_no": 2, "status": "rejected", "reason": "out of range"}],
}
TERMS: Record = {
    "sku": "S-1",
    "party": "V-1",
    "order_unit": "EA",
    "lead_time_days": "7",
    "minimum_quantity": {"value": "10", "unit": "EA"},
    "maximum_quantity": {"value": "100", "unit": "EA"},
}
BALANCE: Record = {
    "sku": "S-1",
    "loc": "LYON",
    "owner": "ACME",
    "status": "available",
    "as_of": "2026-03-02T06:00:00+01:00",
    "snapshot_sequence": 7,
    "is_full_snapshot": False,
    "source_system": "wms",
    "on_hand": {"value": "5", "unit": "EA"},
}
SALE: Record = {
    "so_no": "SO-1",
    "channel": "web",
    "customer": "C-1",
    "ship_to": "C-1",
    "order_date": "2026-03-02",
    "currency": "EUR",
    "status": "open",
    "lines": [{"line_no": 1, "sku": "S-1", "quantity": {"value": "10", "unit": "EA"}}],
}
PRODUCT: Record = {
    "sku": "S-1",
    "description": "Brake pad",
    "status": "active",
    "base_unit": "EA",
    "packs": [
        {"level": "case", "unit": "CS", "factor": "24", "gross_weight": {"value": "6", "unit": "KGM"}},
        {"level": "inner", "unit": "PK", "factor": "6", "length": {"value": "200", "unit": "MMT"}},
    ],
}
PLACE: Record = {"loc": "LYON", "name": "Lyon", "type": "warehouse", "timezone": "Europe/Paris", "active": True}
COMPANY: Record = {"party": "V-1", "legal_name": "Vendor SA", "roles": ["SU"], "status": "active"}
DEMAND: Record = {
    "sku": "S-1",
    "loc": "LYON",
    "bucket_start": "2026-03-02",
    "bucket_end": "2026-03-08",
    "quantity": {"value": "40", "unit": "EA"},
    "type": "planned",
    "measure": "baseline",
    "forecast_version": "2026-W10",
    "created_at": "2026-03-01T22:00:00Z",
}
VALID = {
    "purchase-order/1": ORDER,
    "replenishment-recommendation/1": RECOMMENDATION,
    "order-acknowledgement/1": ANSWER,
    "item-supplier/1": TERMS,
    "inventory-balance/1": BALANCE,
    "sales-order/1": SALE,
    "product/1": PRODUCT,
    "location/1": PLACE,
    "party/1": COMPANY,
    "forecast/1": DEMAND,
}
GONE = object()


def changed(contract: str, path: str, value: object) -> Record:
    """The valid record of a contract with one field set, or taken away."""
    whole = copy.deepcopy(VALID[contract])
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner: Any = whole
    for step in way:
        inner = inner[step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return whole


PO, RECO, ACK, SUPPLY, STOCK, SO, SKU, LOC, PARTY, FORECAST = VALID
EUR_1 = {"amount": "1", "currency": "EUR"}
EACH_9 = {"value": "9", "unit": "EA"}
OVERRIDE = {"owner": "kim", "reason": "promotion", "expires": "2026-04-01"}
REFUSED = [
    (PO, "po_no", GONE, "po_no", "missing-field"),
    (PO, "po_no", 4711, "po_no", "bad-code"),
    (PO, "po_no", "PO-4711 ", "po_no", "bad-code"),
    (PO, "po_no", "PO\u200b-4711", "po_no", "bad-code"),
    (PO, "po_no", "A\u0308", "po_no", "bad-code"),
    (PO, "po_no", "x" * 65, "po_no", "bad-code"),
    (PO, "terms", "net\n30", "terms", "bad-text"),
    (PO, "terms", "net \ud800", "terms", "bad-text"),
    (PO, "purpose", "orginal", "purpose", "unknown-word"),
    (PO, "pono", "x", "pono", "unknown-field"),
    (PO, "order_date", "2026-03-02T00:00:00Z", "order_date", "not-a-date"),
    (PO, "order_date", datetime(2026, 3, 2, tzinfo=UTC), "order_date", "not-a-date"),
    (PO, "order_date", "31/02/2026", "order_date", "not-a-date"),
    (PO, "order_date", "2026-02-31", "order_date", "no-such-day"),
    (PO, "order_date", "1899-12-31", "order_date", "not-a-date"),
    (PO, "requested_ship_date", "2026-03-01", "requested_ship_date", "date-order"),
    (PO, "lines", [], "lines", "missing-field"),
    (PO, "lines", {"1": {}}, "lines", "not-a-list"),
    (PO, "lines.1.line_no", 1, "lines.1.line_no", "not-unique"),
    (PO, "lines.1.line_no", True, "lines.1.line_no", "not-whole"),
    (PO, "lines.1.line_no", 2.0, "lines.1.line_no", "not-whole"),
    (PO, "lines.1.need_date", "2026-03-01", "lines.1.need_date", "date-order"),
    (PO, "lines.0.quantity.value", "0", "lines.0.quantity.value", "not-positive"),
    (PO, "lines.0.quantity.value", "-1", "lines.0.quantity.value", "not-positive"),
    (PO, "lines.0.quantity.value", 10.0, "lines.0.quantity.value", "not-exact"),
    (PO, "lines.0.quantity.value", "1_0", "lines.0.quantity.value", "not-exact"),
    (PO, "lines.0.quantity.value", "\u0661\u0660", "lines.0.quantity.value", "not-exact"),
    (PO, "lines.0.quantity.value", "NaN", "lines.0.quantity.value", "not-exact"),
    (PO, "lines.0.quantity.value", 10**4000, "lines.0.quantity.value", "not-exact"),
    (PO, "lines.0.quantity.unit", "ea", "lines.0.quantity.unit", "unknown-unit"),
    (PO, "lines.0.quantity", "10", "lines.0.quantity", "not-an-object"),
    (PO, "lines.0.quantity.uom", "EA", "lines.0.quantity.uom", "unknown-field"),
    (PO, "lines.0.price.currency", "USD", "lines.0.price.currency", "mixed-currencies"),
    (PO, "lines.0.price.unit", "KGM", "lines.0.price.unit", "no-factor"),
    (PO, "lines.0.open_quantity", {"value": "11", "unit": "EA"}, "lines.0.open_quantity", "over-limit"),
    (PO, "lines.0.open_quantity", {"value": "1", "unit": "CS"}, "lines.0.open_quantity.unit", "unit-mismatch"),
    (PO, "lines.0.gtin", "4006381333932", "lines.0.gtin", "bad-check-digit"),
    (PO, "total.amount", "20.51", "total", "sum-mismatch"),
    (PO, "total.amount", "20.505", "total.amount", "too-many-digits"),
    (PO, "total.currency", "USD", "total.currency", "mixed-currencies"),
    (PO, "ext", {"a": float("nan")}, "ext", "bad-ext"),
    (PO, "ext", {"a": 2**63}, "ext", "bad-ext"),
    (PO, "ext", {1: "a"}, "ext", "bad-ext"),
    (PO, "ext", {"a": Decimal(1)}, "ext", "bad-ext"),
    (PO, "approval", {"hash": "00", "by": "x", "at": "2026-03-02T00:00:00Z"}, "approval.hash", "bad-hash"),
    (PO, "approval", {"hash": "0a" * 32, "by": "x", "at": "2026-03-02T00:00:00"}, "approval.at", "not-an-instant"),
    (PO, "approval", {"hash": "0a" * 32, "by": "x", "at": datetime(2026, 3, 2)}, "approval.at", "no-offset"),  # noqa: DTZ001
    (
        PO,
        "approval",
        {"hash": "0a" * 32, "by": "x", "at": "2026-03-02T00:00Z", "limit": EUR_1},
        "approval.limit",
        "over-limit",
    ),
    (RECO, "supplier", GONE, "supplier", "missing-field"),
    (RECO, "from_loc", "PARIS", "from_loc", "field-too-many"),
    (RECO, "need_date", "2026-03-01", "need_date", "date-order"),
    (ACK, "lines.1.status", "accepted", "ack_type", "ack-mismatch"),
    (ACK, "ack_type", "accepted", "lines.1.status", "ack-mismatch"),
    (ACK, "lines", [], "lines", "missing-field"),
    (ACK, "lines.1.reason", GONE, "lines.1.reason", "missing-field"),
    (ACK, "lines.1.status", "substituted", "lines.1.substitute_sku", "missing-field"),
    (SUPPLY, "minimum_quantity.value", "101", "minimum_quantity", "over-limit"),
    (SUPPLY, "minimum_quantity.unit", "CS", "minimum_quantity.unit", "unit-mismatch"),
    (SUPPLY, "share_percent", "100.1", "share_percent", "over-limit"),
    (SUPPLY, "breaks", [{"from_quantity": EACH_9, "price": EUR_1}] * 2, "breaks.1.from_quantity", "break-order"),
    (SUPPLY, "cost", {"amount": "x", "currency": "EUR"}, "cost.amount", "not-exact"),
    (SKU, "packs.0.factor", "5", "packs.0.factor", "pack-order"),
    (SKU, "packs.0.level", "inner", "packs.1.level", "not-unique"),
    (SKU, "packs.0.gross_weight.unit", "MTR", "packs.0.gross_weight.unit", "unit-mismatch"),
    (SKU, "packs.1.length.unit", "KGM", "packs.1.length.unit", "unit-mismatch"),
    (SKU, "expiry_tracked", True, "shelf_life_days", "missing-field"),
    (SKU, "identifiers", [{"scheme": "gtin-13", "value": "4006381333932"}], "identifiers.0.value", "bad-check-digit"),
    (LOC, "parent", "LYON", "parent", "own-parent"),
    (LOC, "timezone", "CEST+1", "timezone", "bad-zone"),
    (LOC, "gln", "6291041500214", "gln", "bad-check-digit"),
    (LOC, "address", {"city": "London", "country": "UK"}, "address.country", "bad-country"),
    (LOC, "roles", ["erp"], "roles", "bad-roles"),
    (PARTY, "roles", [], "roles", "missing-field"),
    (PARTY, "identifiers", [{"scheme": "duns", "value": "150483782"}] * 2, "identifiers.1.value", "not-unique"),
    (FORECAST, "measure", "override", "override", "missing-field"),
    (FORECAST, "override", OVERRIDE, "override", "field-too-many"),
    (FORECAST, "bucket_end", "2026-03-01", "bucket_end", "date-order"),
    (STOCK, "on_hand.value", "-1", "on_hand.value", "negative"),
    (STOCK, "allocated", {"value": "1", "unit": "CS"}, "allocated.unit", "unit-mismatch"),
    (STOCK, "as_of", "2026-03-02", "as_of", "not-an-instant"),
    (STOCK, "is_full_snapshot", "true", "is_full_snapshot", "not-a-flag"),
    (SO, "lines.0.shipped", {"value": "11", "unit": "EA"}, "lines.0.quantity", "over-limit"),
    (SO, "lines", [], "lines", "missing-field"),
]


@pytest.mark.parametrize(("contract", "path", "value", "place", "code"), REFUSED)
def test_a_broken_rule_names_its_field(contract: str, path: str, value: object, place: str, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse(contract, changed(contract, path, value))
    assert (caught.value.place, caught.value.code) == (place, code)
    assert caught.value.rule
    assert caught.value.hint


@pytest.mark.parametrize("contract", VALID)
def test_the_records_that_are_spoiled_above_are_good(contract: str) -> None:
    parse(contract, VALID[contract])


def test_every_wrong_field_is_listed_and_the_first_is_the_place() -> None:
    wrong = changed(PO, "purpose", "orginal") | {"currency": "EURO", "buyer": ""}
    with pytest.raises(RejectedError) as caught:
        parse(PO, wrong)
    assert caught.value.place == "purpose"
    assert all(f"{name}: " in caught.value.message for name in ("purpose", "buyer", "currency"))
    assert caught.value.hint == "Did you mean original?"


def test_a_misspelt_field_gets_the_name_that_was_meant() -> None:
    with pytest.raises(RejectedError, match="Did you mean vendor_part"):
        parse(PO, changed(PO, "lines.0.vender_part", "V"))


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b'{"a":1,"a":2}', "duplicate-name"), (b"[" * 100_000, "bad-json"), (b'{"a":NaN}', "bad-json"), (b'"\\ud800"', "bad-json"),
     (b"\xff", "bad-json"), (b"", "bad-json"), (b"[]", "not-an-object"), (b'{"a":' + b"9" * 5000 + b"}", "bad-json")],
)  # fmt: skip
def test_bytes_that_are_no_record_are_refused(raw: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse(PO, raw)
    assert caught.value.code == code


def test_an_unknown_contract_gets_the_name_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean purchase-order/1\?"):
        entity_type("purchase_order")
    with pytest.raises(ConfigError, match=r"Did you mean purchase-order/1\?"):
        entity_type("purchase-order/2")


def test_an_order_to_cancel_may_have_no_lines() -> None:
    withdrawn = {name: value for name, value in ORDER.items() if name not in ("lines", "total")} | {"purpose": "cancel"}
    assert parse(PO, withdrawn).business_key == "PO-4711"


def test_an_instant_keeps_the_offset_it_was_written_with() -> None:
    written = to_record(parse(STOCK, BALANCE))["as_of"]
    assert written == "2026-03-02T06:00:00+01:00"
    paris = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris"))
    assert to_record(parse(STOCK, BALANCE | {"as_of": paris}))["as_of"] == "2026-10-25T02:30:00+01:00"


def test_decimals_are_written_without_exponent() -> None:
    tiny = changed(STOCK, "on_hand", {"value": Decimal("1E-10"), "unit": "KGM"})
    assert to_record(parse(STOCK, tiny))["on_hand"]["value"] == "0.0000000001"
    large = changed(STOCK, "on_hand", {"value": Decimal("1E+3"), "unit": "KGM"})
    assert to_record(parse(STOCK, large))["on_hand"]["value"] == "1000"


def test_every_field_of_a_value_is_written() -> None:
    cases = {"value": "2", "unit": "CS", "base_value": "24", "base_unit": "EA", "pack_factor": "12"}
    assert set(cases) == {one.name for one in fields(Quantity)}
    assert to_record(parse(STOCK, changed(STOCK, "on_hand", cases)))["on_hand"] == cases
    price = {"amount": "0.0000001", "currency": "EUR", "per": "100", "unit": "EA"}
    assert set(price) == {one.name for one in fields(UnitPrice)}
    assert to_record(parse(SUPPLY, changed(SUPPLY, "cost", price)))["cost"] == price
    limit = {"amount": "1000.00", "currency": "EUR"}
    approval = {"hash": "0a" * 32, "by": "x", "at": "2026-03-02T00:00:00+00:00", "limit": limit}
    assert set(limit) == {one.name for one in fields(Money)}
    assert to_record(parse(PO, ORDER | {"approval": approval}))["approval"] == approval
    number = {"scheme": "vendor_part", "value": "4711", "issuer": "ACME"}
    assert set(number) == {one.name for one in fields(Identifier)}
    assert to_record(parse(PARTY, changed(PARTY, "identifiers", [number])))["identifiers"] == [number]


def test_unknown_partner_data_is_kept_in_ext_and_not_shared_with_the_caller() -> None:
    segments: Record = {"N9": ["ZZ", None, 1.5, {"deep": "\x1b"}]}
    order = parse(PO, ORDER | {"ext": segments})
    segments["N9"].clear()
    assert to_record(order)["ext"] == {"N9": ["ZZ", None, 1.5, {"deep": "\x1b"}]}


@given(st.lists(st.none() | codes, min_size=2, max_size=4), st.lists(st.none() | codes, min_size=2, max_size=4))
def test_different_parts_never_make_the_same_key(one: list[str | None], other: list[str | None]) -> None:
    assert (joined_key(*one) == joined_key(*other)) == (one == other)


def test_a_revision_keeps_the_business_key() -> None:
    assert parse(PO, ORDER | {"revision": 5}).business_key == parse(PO, ORDER).business_key == "PO-4711"
    assert parse(STOCK, BALANCE | {"lot": "A/1"}).business_key == "S-1/LYON/A%2F1/ACME/available"


def test_an_entity_cannot_be_changed() -> None:
    order = parse(PO, ORDER)
    assert isinstance(order, PurchaseOrder)
    with pytest.raises(ValueError, match="frozen"):
        order.po_no = "PO-1"  # type: ignore[misc]  # that is the point


def test_every_contract_has_a_json_schema_for_editors() -> None:
    for kind in ENTITIES.values():
        assert kind.model_json_schema()["additionalProperties"] is False
