"""JSON and JSON Lines: what the standard library lets pass or dies of, numbers beyond a store, cut and broken documents."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from random import Random

from connectors.formats.records import JSONValue
from connectors.formats.settings import JsonLinesSettings, JsonSettings
from tests.corpus.case import Case, cuts, positions, put

COUNT = 6
ARRAY = JsonSettings()
LINES = JsonLinesSettings()
NESTED = JsonSettings(pointer="/data/items")

# A record that cannot be read, as its brackets and quotes are in order: one bad record in an array as on a line.
POISON: tuple[tuple[str, str, str], ...] = (
    ("duplicate", '{"po":"1","po":"2"}', "json-duplicate-key"),
    ("duplicate-escaped", '{"po":"1","p\\u006f":"2"}', "json-duplicate-key"),
    ("duplicate-inside", '{"lines":[{"q":1,"q":1}]}', "json-duplicate-key"),
    ("nan", '{"q":NaN}', "json-number"),
    ("infinity", '{"q":Infinity}', "json-number"),
    ("minus-infinity", '{"q":[-Infinity]}', "json-number"),
    ("1e999", '{"q":1e999}', "json-number-range"),
    ("1e-999", '{"q":1e-999}', "json-number-range"),
    ("absurd-exponent", '{"q":1e99999999999999999999}', "json-number-range"),
    ("5000-digits", '{"q":' + "9" * 5_000 + "}", "json-number-range"),
    ("5000-decimals", '{"q":0.' + "1" * 5_000 + "}", "json-number-range"),
    ("depth-65", '{"a":' * 65 + "1" + "}" * 65, "json-depth"),
    ("depth-lists", '{"a":' + "[" * 64 + "]" * 64 + "}", "json-depth"),
    ("depth-100000", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "json-depth"),
    ("surrogate-high", '{"n":"\\ud800"}', "json-surrogate"),
    ("surrogate-low", '{"n":"x\\uDC00y"}', "json-surrogate"),
    ("surrogate-swapped", '{"n":"\\udc00\\ud800"}', "json-surrogate"),
    ("surrogate-name", '{"\\ud800":1}', "json-surrogate"),
    ("keys-10001", "{" + ",".join(f'"k{at}":1' for at in range(10_001)) + "}", "json-too-many-keys"),
    ("comma-at-end", '{"a":1,}', "json-syntax"),
    ("comma-only", "{,}", "json-syntax"),
    ("comma-missing", '{"a":1 "b":2}', "json-syntax"),
    ("colon-missing", '{"a" 1}', "json-syntax"),
    ("value-missing", '{"a":}', "json-syntax"),
    ("name-bare", "{a:1}", "json-syntax"),
    ("name-number", "{1:1}", "json-syntax"),
    ("single-quotes", "{'a':1}", "json-syntax"),
    ("comment", '{"a":1/*x*/}', "json-syntax"),
    ("leading-zero", '{"a":01}', "json-syntax"),
    ("plus", '{"a":+1}', "json-syntax"),
    ("point-first", '{"a":.5}', "json-syntax"),
    ("point-last", '{"a":5.}', "json-syntax"),
    ("hex", '{"a":0x1F}', "json-syntax"),
    ("minus-only", '{"a":-}', "json-syntax"),
    ("arabic-digits", '{"a":١٢}', "json-syntax"),
    ("underscore", '{"a":1_000}', "json-syntax"),
    ("python-words", '{"a":True,"b":None}', "json-syntax"),
    ("wrong-escape", '{"a":"\\x41"}', "json-syntax"),
    ("short-escape", '{"a":"\\u12"}', "json-syntax"),
    ("tab-in-text", '{"a":"x\ty"}', "json-syntax"),
    ("nul-in-text", '{"a":"x\0y"}', "json-syntax"),
    ("wrong-bracket", '{"a":[1}', "json-syntax"),
    ("text-after", '{"a":1} x', "json-syntax"),
    ("two-values", '{"a":1}{"b":2}', "json-syntax"),
    ("list", "[1,2]", "json-not-object"),
    ("text", '"x"', "json-not-object"),
    ("number", "42", "json-not-object"),
    ("null", "null", "json-not-object"),
)
# On a line these are one bad record; in an array nobody can say where the record ends.
UNBALANCED: tuple[tuple[str, str, str], ...] = (
    ("brace-missing", '{"a":{"b":1}', "json-truncated"),
    ("quote-missing", '{"a":"x}', "json-truncated"),
    ("brace-extra", '{"a":1}}', "json-syntax"),
)
VALUES: tuple[tuple[str, str, JSONValue], ...] = (
    ("20-digits", "12345678901234567890", Decimal(12345678901234567890)),
    ("64-bit", "9223372036854775807", 9223372036854775807),
    ("64-bit-negative", "-9223372036854775808", -9223372036854775808),
    ("64-bit-and-one", "9223372036854775808", Decimal(9223372036854775808)),
    ("double-gap", "9007199254740993", 9007199254740993),
    ("money", "1234567.10", Decimal("1234567.10")),
    ("tenth", "0.1", Decimal("0.1")),
    ("exponent", "1.5E3", Decimal("1.5E3")),
    ("zero-fraction", "2.0", Decimal("2.0")),
    ("emoji-pair", '"\\ud83d\\ude00"', "😀"),
    ("escaped-backslash", '"\\\\ud800"', "\\ud800"),
    ("nul-escape", '"a\\u0000b"', "a\0b"),
    ("bidi", '"\u202eabc"', "\u202eabc"),
    ("line-separator", '"\u2028"', "\u2028"),
    ("brackets-in-text", '"]},{[\\""', ']},{["'),
    ("depth-64", "[" * 63 + "]" * 63, None),
    ("megabyte", f'"{"x" * 1_000_000}"', "x" * 1_000_000),
    ("empty-name", '{"":1}', {"": 1}),
)
WRONG_BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xe9")


def json_cases(rng: Random) -> Iterator[Case]:
    """All JSON cases of one seed."""
    for cases in (_poison, _values, _encodings, _documents, _pointers, _large, _cut):
        yield from cases(rng)


def _case(
    name: str,
    settings: JsonSettings | JsonLinesSettings,
    raw: bytes | str,
    good: int,
    *,
    bad: tuple[str, ...] = (),
    reject: str = "",
    fields: tuple[dict[str, JSONValue], ...] = (),
) -> Case:
    data = raw.encode() if isinstance(raw, str) else raw
    return Case(
        family=settings.kind, name=name, settings=settings, raw=data, good=good, bad=bad, reject=reject, fields=fields
    )


def _records(rng: Random, count: int = COUNT) -> list[str]:
    return [
        f'{{"po": "PO-{rng.randrange(10_000)}", "qty": {rng.randrange(1, 999)}, "price": {rng.randrange(100)}.{at:02d}}}'
        for at in range(count)
    ]


def _array(records: list[str]) -> str:
    return "[" + ",\n ".join(records) + "]\n"


def _lines(records: list[str]) -> str:
    return "\n".join(records) + "\n"


def _poison(rng: Random) -> Iterator[Case]:
    for name, record, code in POISON:
        for where, at in positions(COUNT):
            records = put(_records(rng), at, record)
            yield _case(f"{name}-{where}", ARRAY, _array(records), COUNT, bad=(code,))
            yield _case(f"{name}-{where}", LINES, _lines(records), COUNT, bad=(code,))
    for name, record, code in UNBALANCED:
        for where, at in positions(COUNT):
            yield _case(f"{name}-{where}", LINES, _lines(put(_records(rng), at, record)), COUNT, bad=(code,))
    for where, at in positions(COUNT):
        cut = _array(put(_records(rng), at, UNBALANCED[0][1]))
        yield _case(f"brace-missing-{where}", ARRAY, cut, at, bad=("json-syntax",), reject="json-truncated")
        extra = _array(put(_records(rng), at, UNBALANCED[2][1]))
        yield _case(f"brace-extra-{where}", ARRAY, extra, at + 1, reject="json-syntax")


def _values(rng: Random) -> Iterator[Case]:
    for name, text, value in VALUES:
        fields = () if name == "depth-64" else ({"v": value},)
        yield _case(f"value-{name}", ARRAY, f'[{{"v":{text}}}]', 1, fields=fields)
        yield _case(f"value-{name}", LINES, f'{{"v":{text}}}', 1, fields=fields)


def _encodings(rng: Random) -> Iterator[Case]:
    for data in WRONG_BYTES:
        for where, at in positions(COUNT):
            records = put(_records(rng), at, '{"city": "?!"}')
            for settings, text in ((ARRAY, _array(records)), (LINES, _lines(records))):
                raw = text.encode().replace(b"?!", data)
                yield _case(f"wrong-byte-{data.hex()}-{where}", settings, raw, COUNT, bad=("encoding",))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        yield _case(f"undeclared-{encoding}", ARRAY, _array(_records(rng)).encode(encoding), 0, reject="encoding")
        yield _case(f"undeclared-{encoding}", LINES, _lines(_records(rng)).encode(encoding), 0, reject="encoding")
    yield _case("mark", ARRAY, _array(_records(rng)).encode("utf-8-sig"), COUNT)
    yield _case("mark", LINES, _lines(_records(rng)).encode("utf-8-sig"), COUNT)
    wide = JsonSettings(encoding="utf-16")
    yield _case("declared-utf-16", wide, _array(_records(rng)).encode("utf-16"), COUNT)


def _documents(rng: Random) -> Iterator[Case]:
    for name, text, good, reject in (
        ("empty", "", 0, "json-empty"),
        ("spaces", " \r\n\t ", 0, "json-empty"),
        ("empty-list", "[]", 0, ""),
        ("empty-list-spaces", " [ ] ", 0, ""),
        ("one-object", '{"a":1}', 1, ""),
        ("number", "42", 0, "json-pointer"),
        ("null", "null", 0, "json-pointer"),
        ("comma-first", '[,{"a":1}]', 0, "json-syntax"),
        ("comma-last", '[{"a":1},]', 1, "json-syntax"),
        ("comma-twice", '[{"a":1},,{"a":1}]', 1, "json-syntax"),
        ("text-after", '[{"a":1}] x', 1, "json-syntax"),
        ("list-after", '[{"a":1}][]', 1, "json-syntax"),
        ("is-lines", '{"a":1}\n{"a":2}\n', 1, "json-syntax"),
        ("wrong-end", '[{"a":1}}', 1, "json-syntax"),
        ("open", "[", 0, "json-truncated"),
        ("never-closed", "[" * 1_000, 0, "json-truncated"),
    ):
        yield _case(f"document-{name}", ARRAY, text, good, reject=reject)
    yield _case("blank-lines", LINES, "\n\r\n" + "\n\n".join(_records(rng)) + "\n \n", COUNT)
    yield _case("crlf", LINES, "\r\n".join(_records(rng)), COUNT)
    yield _case("is-an-array", LINES, _array(_records(rng, 1)), 0, bad=("json-not-object",))
    yield _case("empty", LINES, "", 0)


def _pointers(rng: Random) -> Iterator[Case]:
    array = _array(_records(rng))
    for name, text, good, reject in (
        ("found", f'{{"n":[1,{{"x":"]}}"}}],"data":{{"items":{array},"next":null}},"z":{{}}}}', COUNT, ""),
        ("one-object", '{"data":{"items":{"a":1}}}', 1, ""),
        ("missing", '{"data":{"rows":[]}}', 0, "json-pointer"),
        ("empty-object", "{}", 0, "json-pointer"),
        ("no-object", "[]", 0, "json-pointer"),
        ("null", '{"data":{"items":null}}', 0, "json-pointer"),
        ("outer-null", '{"data":null}', 0, "json-pointer"),
        ("twice", f'{{"data":{{"items":{array},"items":[]}}}}', COUNT, "json-duplicate-key"),
        ("outer-twice", f'{{"data":{{"items":{array}}},"data":0}}', COUNT, "json-duplicate-key"),
        ("cut-behind", f'{{"data":{{"items":{array}', COUNT, "json-truncated"),
        ("cut-in-name", f'{{"data":{{"items":{array},"ne', COUNT, "json-truncated"),
        ("broken-behind", f'{{"data":{{"items":{array},}}}}', COUNT, "json-syntax"),
    ):
        yield _case(f"pointer-{name}", NESTED, text, good, reject=reject)


def _large(rng: Random) -> Iterator[Case]:
    million = "{" + ",".join(f'"k{at}":1' for at in range(1_000_000)) + "}"
    long_text = '{"a":"' + "x" * 4_300_000 + '"}'
    records = put(put(_records(rng), 2, million), 4, long_text)
    both = ("json-record-too-large",) * 2
    yield _case("million-keys-and-long-text", ARRAY, _array(records), COUNT, bad=both)
    yield _case("million-keys-and-long-text", LINES, _lines(records), COUNT, bad=both)
    small = {"max_record_size": 64}
    for size in (200, 300_000):
        for where, at in positions(COUNT):
            records = put(_records(rng), at, '{"a":"' + '\\"' * size + '"}')
            yield _case(f"over-64-{size}-{where}", ARRAY.model_copy(update=small), _array(records), COUNT, bad=both[:1])
            yield _case(f"over-64-{size}-{where}", LINES.model_copy(update=small), _lines(records), COUNT, bad=both[:1])


def _cut(rng: Random) -> Iterator[Case]:
    array, lines = _array(_records(rng)).rstrip().encode(), _lines(_records(rng)).encode()
    for at, short in cuts(array, 3, start=1):
        yield _case(f"cut-at-{at}", ARRAY, short, short.count(b"}"), reject="json-truncated")
    for at, short in cuts(lines, 5):
        whole = short.count(b"}")
        broken = short[short.rfind(b"}") + 1 :].strip()
        yield _case(f"cut-at-{at}", LINES, short, whole, bad=("json-truncated",) if broken else ())
