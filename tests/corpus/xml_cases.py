"""XML: entity and expansion attacks, encodings, depth and width without end, syntax errors, cut documents."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from connectors.formats.settings import XmlSettings
from tests.corpus.case import Case, cuts, positions, put

COUNT = 6
ORDERS = XmlSettings(record="orders/order")
ENTITY = '<!DOCTYPE orders [<!ENTITY x "y">]>'

DOCTYPES: tuple[tuple[str, str], ...] = (
    ("small-entity", ENTITY),
    ("billion-laughs", "<!DOCTYPE o [<!ENTITY a '" + "x" * 10 + "'>" + "<!ENTITY b '&a;&a;'><!ENTITY c '&b;&b;'>]>"),
    ("quadratic", f"<!DOCTYPE o [<!ENTITY a '{'x' * 100_000}'>]>"),
    ("external-file", '<!DOCTYPE o [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    ("external-http", '<!DOCTYPE o [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>'),
    ("external-unc", '<!DOCTYPE o [<!ENTITY x SYSTEM "\\\\host\\share\\x">]>'),
    ("external-subset", '<!DOCTYPE o SYSTEM "http://127.0.0.1:9/o.dtd">'),
    ("public", '<!DOCTYPE o PUBLIC "-//X//Y" "o.dtd">'),
    ("parameter-entity", '<!DOCTYPE o [<!ENTITY % p SYSTEM "file:///dev/zero"> %p;]>'),
    ("attribute-default", '<!DOCTYPE o [<!ATTLIST order qty CDATA "1">]>'),
    ("notation", '<!DOCTYPE o [<!NOTATION n SYSTEM "x">]>'),
    ("empty", "<!DOCTYPE orders>"),
    ("recursion", '<!DOCTYPE o [<!ENTITY a "&b;"><!ENTITY b "&a;">]>'),
)
# Not well formed: the records before are read, then the document is refused.
BROKEN: tuple[tuple[str, str], ...] = (
    ("mismatched", "<order><a></b></order>"),
    ("crossed", "<order><a><b></a></b></order>"),
    ("entity", "<order>&x;</order>"),
    ("entity-nbsp", "<order>&nbsp;</order>"),
    ("ampersand", "<order>A & B</order>"),
    ("less-than", "<order>1 < 2</order>"),
    ("attribute-twice", '<order a="1" a="2"/>'),
    ("attribute-bare", "<order a=1/>"),
    ("attribute-alone", "<order a/>"),
    ("control", "<order>\x01</order>"),
    ("nul", "<order>\0</order>"),
    ("nul-reference", "<order>&#0;</order>"),
    ("surrogate-reference", "<order>&#xD800;</order>"),
    ("prefix-unknown", "<order><x:a/></order>"),
    ("name-digit", "<order><1a/></order>"),
    ("comment-dashes", "<order><!-- a -- b --></order>"),
    ("declaration-late", '<?xml version="1.0"?><order/>'),
    ("doctype-late", "<!DOCTYPE x><order/>"),
)
# Well formed and beyond a limit: one bad record, the rest is read.
BEYOND: tuple[tuple[str, str, str], ...] = (
    ("depth-65", "<order>" + "<a>" * 64 + "</a>" * 64 + "</order>", "xml-depth"),
    ("depth-10000", "<order>" + "<a>" * 10_000 + "</a>" * 10_000 + "</order>", "xml-depth"),
    ("attributes-200000", "<order " + " ".join(f'a{at}="1"' for at in range(200_000)) + "/>", "xml-too-many-fields"),
    ("children-10001", "<order>" + "<a/>" * 10_001 + "</order>", "xml-too-many-fields"),
    ("text", f"<order>{'x' * 4_300_000}</order>", "xml-record-too-large"),
    ("cdata", f"<order><![CDATA[{'<' * 4_300_000}]]></order>", "xml-record-too-large"),
    ("name-clash", '<order xmlns:n="urn:n" a="1" n:a="2"/>', "xml-name-clash"),
)
READABLE: tuple[tuple[str, str], ...] = (
    ("xinclude", '<order xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"/></order>'),
    ("cdata", "<order><a><![CDATA[1 < 2 && x]]></a></order>"),
    ("comment", "<order><!-- <order/> --><a>1</a></order>"),
    ("instruction", '<order><?xml-stylesheet href="file:///etc/passwd"?><a>1</a></order>'),
    ("empty", "<order/>"),
    ("empty-attribute", '<order a=">" />'),
    (
        "schema-location",
        '<order xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="u http://127.0.0.1:9/x"/>',
    ),
    ("nested-same-name", "<order><order><order>1</order></order></order>"),
    ("references", "<order>&#x41;&lt;&amp;&#233;</order>"),
    ("namespace", '<n:order xmlns:n="urn:n"><n:a>1</n:a></n:order>'),
    ("depth-64", "<order>" + "<a>" * 63 + "</a>" * 63 + "</order>"),
    ("megabyte", f"<order><a>{'x' * 1_000_000}</a></order>"),
)


def xml_cases(rng: Random) -> Iterator[Case]:
    """All XML cases of one seed."""
    for cases in (_doctypes, _broken, _beyond, _readable, _encodings, _documents, _cut):
        yield from cases(rng)


def _case(
    name: str,
    raw: bytes | str,
    good: int,
    *,
    bad: tuple[str, ...] = (),
    reject: str = "",
) -> Case:
    data = raw.encode() if isinstance(raw, str) else raw
    return Case(family="xml", name=name, settings=ORDERS, raw=data, good=good, bad=bad, reject=reject)


def _orders(rng: Random) -> list[str]:
    return [f'<order id="{at}"><sku>S{rng.randrange(999)}</sku><city>Évry</city></order>' for at in range(COUNT)]


def _document(records: list[str], prolog: str = '<?xml version="1.0"?>') -> str:
    return f"{prolog}<orders><sent>2026-01-31</sent>" + "\n ".join(records) + "</orders>"


def _doctypes(rng: Random) -> Iterator[Case]:
    for name, doctype in DOCTYPES:
        for use, records in (("used", put(_orders(rng), 2, "<order>&x;&a;&c;</order>")), ("unused", _orders(rng))):
            yield _case(f"doctype-{name}-{use}", _document(records, doctype), 0, reject="xml-doctype")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"):
        yield _case(f"doctype-in-{encoding}", _document(_orders(rng), ENTITY).encode(encoding), 0, reject="xml-doctype")


def _broken(rng: Random) -> Iterator[Case]:
    for name, record in BROKEN:
        for where, at in positions(COUNT):
            yield _case(f"{name}-{where}", _document(put(_orders(rng), at, record)), at, reject="xml-syntax")


def _beyond(rng: Random) -> Iterator[Case]:
    for name, record, code in BEYOND:
        for where, at in positions(COUNT):
            yield _case(f"beyond-{name}-{where}", _document(put(_orders(rng), at, record)), COUNT, bad=(code,))
    for depth in (50_001, 100_000):
        deep = "<order>" + "<a>" * depth + "</a>" * depth + "</order>"
        yield _case(f"depth-{depth}", _document(put(_orders(rng), 3, deep)), 3, reject="xml-depth")
    for count in (101, 5_000):
        names = " ".join(f'xmlns:n{at}="urn:{at}"' for at in range(count))
        record = f"<order {names}/>"
        yield _case(f"namespaces-{count}", _document(put(_orders(rng), 3, record)), 3, reject="xml-too-many-namespaces")
    long = f"<!--{'x' * 4_400_000}--><order/>"
    yield _case("comment-without-end", _document(put(_orders(rng), 3, long)), 3, reject="xml-record-too-large")


def _readable(rng: Random) -> Iterator[Case]:
    for name, record in READABLE:
        for where, at in positions(COUNT):
            yield _case(f"readable-{name}-{where}", _document(put(_orders(rng), at, record)), COUNT + 1)


def _encodings(rng: Random) -> Iterator[Case]:
    for declared, codec in (
        ("UTF-8", "utf-8"),
        ("utf-8", "utf-8-sig"),
        ("UTF-16", "utf-16"),
        ("UTF-16LE", "utf-16-le"),
        ("UTF-16BE", "utf-16-be"),
        ("windows-1252", "cp1252"),
        ("ISO-8859-1", "iso-8859-1"),
        ("iso-8859-15", "iso-8859-15"),
    ):
        prolog = f'<?xml version="1.0" encoding="{declared}"?>'
        yield _case(f"declared-{declared}-{codec}", _document(_orders(rng), prolog).encode(codec), COUNT)
    for declared in ("UTF-7", "IBM037", "UTF-16", "UTF-32", "x-user", "Shift_JIS"):
        prolog = f'<?xml version="1.0" encoding="{declared}"?>'
        yield _case(f"unreadable-{declared}", _document(_orders(rng), prolog), 0, reject="encoding")
    contradiction = _document(_orders(rng), '<?xml version="1.0" encoding="ISO-8859-1"?>').encode("utf-8-sig")
    yield _case("mark-contradicts", contradiction, 0, reject="encoding")
    yield _case("utf-32", _document(_orders(rng)).encode("utf-32"), 0, reject="encoding")
    for where, at in positions(COUNT):
        records = [record.replace("Évry", "Evry") for record in _orders(rng)]
        raw = _document(put(records, at, "<order>Évry</order>")).encode("cp1252")
        yield _case(f"undeclared-cp1252-{where}", raw, at, reject="encoding")


def _documents(rng: Random) -> Iterator[Case]:
    for name, text, good, reject in (
        ("empty", "", 0, "xml-empty"),
        ("spaces", " \n ", 0, "xml-truncated"),
        ("declaration-only", '<?xml version="1.0"?>', 0, "xml-truncated"),
        ("no-records", "<orders/>", 0, ""),
        ("other-root", "<invoices><order/></invoices>", 0, "xml-path"),
        ("html", "<html><body>502 Bad Gateway</body></html>", 0, "xml-path"),
        ("text", "502 Bad Gateway", 0, "xml-syntax"),
        ("json", '{"orders":[]}', 0, "xml-syntax"),
        ("two-roots", "<orders><order/></orders><orders/>", 1, "xml-syntax"),
        ("text-after", "<orders><order/></orders>x", 1, "xml-syntax"),
        ("record-deeper", "<orders><group><order/></group></orders>", 0, ""),
        ("space-before-declaration", ' <?xml version="1.0"?><orders/>', 0, "xml-syntax"),
        ("version-2-read-as-1", '<?xml version="2.0"?><orders><order/></orders>', 1, ""),
    ):
        yield _case(f"document-{name}", text, good, reject=reject)


def _cut(rng: Random) -> Iterator[Case]:
    raw = _document(_orders(rng)).encode()
    for at, short in cuts(raw, 5, start=5):
        good = short.count(b"</order>")
        split = short.decode(errors="ignore").encode() != short
        yield _case(f"cut-at-{at}", short, good, reject="encoding" if split else "xml-truncated")
