"""An XML document <-> records: the elements at one path, in memory bounded by the largest of them.

Expat reads it piece by piece. A document type is refused before anything in it is read, and with it every entity attack and
every fetch of something elsewhere; XInclude is an element like any other. XML cannot be read on after a syntax error: the
records before it are yielded, then the file is refused. A record that is well formed and beyond a limit is one bad record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from xml.parsers import expat

from connectors.formats.characters import Characters, offset_place, read_head, sniff
from connectors.formats.records import BadRecord, ByteSource, Flaw, FlawError, JSONValue, Record, show
from connectors.formats.settings import Encoding, XmlSettings
from connectors.formats.writing import TextEncoder, plain_number, unwritable

_HEAD_SIZE = 1024
_MOST_OPEN = 50_000  # elements open at once, inside records and outside; expat keeps some hundred bytes of each
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._\-]+)["']""")
_ENCODINGS: Mapping[str, Encoding] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "iso-8859-1": "iso-8859-1",
    "latin1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_PROVEN: Mapping[str, Encoding] = {"utf-8": "utf-8", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be"}
_DECLARED_AS: Mapping[Encoding, str] = {
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "cp1252": "windows-1252",
    "iso-8859-1": "ISO-8859-1",
    "iso-8859-15": "ISO-8859-15",
}
_CUT_SHORT = frozenset(
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
    )
)
_UNDEFINED_ENTITY = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]
# Narrower than XML 1.0: what every parser, whatever edition it follows, takes as a name.
_WRITTEN_NAME = re.compile("[A-Za-z_À-ÖØ-öø-ÿ][A-Za-z0-9_À-ÖØ-öø-ÿ.\\-]*")
_NO_XML_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_IN_ATTRIBUTE = str.maketrans({"&": "&amp;", "<": "&lt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})


def decode(source: ByteSource, settings: XmlSettings) -> Iterator[Record | BadRecord]:
    """Read the elements at `settings.record`, each as one record.

    Raises `RejectedError`, after the records before, for a document type, a syntax error, a document that is cut short, one
    whose root is another, and a wrong or unknown encoding.
    """
    reader = _Reader(settings)
    head = read_head(source, _HEAD_SIZE)
    characters = Characters(_Rejoined(head, source), settings.encoding or _encoding(head))
    line, column = 1, 1
    while text := characters.read():
        try:
            characters.strict(text, line=line, column=column)
        except FlawError as error:
            yield from reader.feed(text[: _good_length(text)])
            raise error.flaw.spoils_file() from None
        yield from reader.feed(text)
        line, column = offset_place(text, len(text), line, column)
    yield from reader.feed("", final=True)


def encode(records: Iterable[Mapping[str, JSONValue]], settings: XmlSettings) -> Iterator[bytes]:
    """Write one document with the records at `settings.record`.

    None and empty lists are left out. Raises `RejectedError` with record and field for what XML cannot hold, and for a second
    record where the record is the root.
    """
    *outer, name = settings.record.split("/")
    encoding = settings.encoding or "utf-8"
    encoder = TextEncoder(encoding)
    opening = "".join(f"<{step}>" for step in outer)
    yield encoder.encode(f'<?xml version="1.0" encoding="{_DECLARED_AS[encoding]}"?>\n{opening}\n')
    number = 0
    for number, record in enumerate(records, start=1):
        if number > 1 and not outer:
            raise unwritable(
                "xml-path", "the root is one record", "Set record to a path such as orders/order", number=number
            )
        yield encoder.encode(_Element(number, settings.max_depth).written(name, dict(record)) + "\n", number)
    if not number and not outer:
        raise unwritable(
            "xml-path", "the root is the record, and there is none", "Set record to a path such as orders/order"
        )
    yield encoder.encode("".join(f"</{step}>" for step in reversed(outer)) + "\n")


class _Rejoined:
    """A stream whose head was already read."""

    def __init__(self, head: bytes, source: ByteSource) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        return data or self._source.read(size)


def _encoding(head: bytes) -> Encoding:
    """The encoding that the first bytes prove or the XML declaration names, UTF-8 otherwise (XML 1.0, appendix F)."""
    proven, mark = sniff(head)
    found = _DECLARATION.match(head[len(mark) :])
    declared = found[1].decode("ascii").lower() if found else ""
    known = _PROVEN.get(proven) if proven else _ENCODINGS.get(declared or "utf-8")
    if known is None or (proven == "utf-8" and declared and _ENCODINGS.get(declared) != "utf-8"):
        raise Flaw(
            code="encoding",
            rule=f"the document is declared {declared or proven}, which its bytes contradict or nobody here reads",
            hint="Have the sender write UTF-8, or set encoding",
            shown=show(declared or proven),
            line=1,
            column=1,
        ).spoils_file()
    return known


@dataclass(slots=True)
class _Node:
    """An element that is still open."""

    name: str
    path: str
    members: dict[str, JSONValue]
    parts: list[str] = field(default_factory=list)
    has_children: bool = False

    def value(self) -> JSONValue:
        """Its text if it is a leaf, else its attributes, children and text."""
        text = "".join(self.parts)
        if not self.members:
            return text
        if text.strip() if self.has_children else text:
            self.members["#text"] = text
        return self.members

    def add(self, name: str, value: JSONValue, *, is_list: bool) -> None:
        """A child is complete; one that comes again makes a list."""
        self.has_children = True
        before = self.members.get(name)
        if isinstance(before, list):
            before.append(value)
        elif before is not None:
            self.members[name] = [before, value]
        else:
            self.members[name] = [value] if is_list else value


class _Reader:
    """Feeds expat and gathers what it says into records."""

    def __init__(self, settings: XmlSettings) -> None:
        self._settings = settings
        self._path = settings.record.split("/")
        self._lists = frozenset(settings.lists)
        self._finished: list[Record | BadRecord] = []
        self._number = 0
        self._depth = 0
        self._matched = 0
        self._namespaces = 0
        self._fed = 0
        self._kept = bytearray()
        self._kept_from = 0
        self._nodes: list[_Node] = []
        self._in_record = False
        self._is_childless = True
        self._flaw: Flaw | None = None
        self._cut = b""
        self._begin = self._line = self._column = self._fields = 0
        self._parser = self._created()

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record | BadRecord]:
        """Read on and yield what is complete. Raises `RejectedError` after that if the document cannot be read further."""
        data = text.encode()
        self._kept += data
        self._fed += len(data)
        failure: Flaw | None = None
        try:
            self._parser.Parse(data, final)
            self._bound()
        except FlawError as error:
            failure = error.flaw
        except expat.ExpatError as error:
            failure = self._syntax(error)
        yield from self._finished
        self._finished.clear()
        if failure is not None:
            raise failure.spoils_file()

    def _created(self) -> expat.XMLParserType:
        parser = expat.ParserCreate("utf-8", " ")
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.EndNamespaceDeclHandler = self._namespace_ended
        return parser

    def _start(self, qualified: str, attributes: list[str]) -> None:
        name = qualified.rpartition(" ")[2]
        self._depth += 1
        if self._depth > _MOST_OPEN:
            raise FlawError(self._here("xml-depth", f"more than {_MOST_OPEN} elements are open", "Ask the sender"))
        if self._in_record:
            self._is_childless = False
            if self._flaw is None:
                self._open(name, attributes)
        elif self._matches(name):
            self._begin_record(name, attributes)

    def _matches(self, name: str) -> bool:
        """Whether the element that opens is a record, going along the path."""
        if self._matched == self._depth - 1 and name == self._path[self._matched]:
            self._matched += 1
        elif self._depth == 1:
            rule = f"the root is {show(name)}, not {self._path[0]}"
            raise FlawError(
                self._here("xml-path", rule, "Correct record in the settings, or have this file's sender checked")
            )
        return self._matched == len(self._path)

    def _begin_record(self, name: str, attributes: list[str]) -> None:
        self._in_record = self._is_childless = True
        self._number += 1
        self._begin = self._parser.CurrentByteIndex
        self._line, self._column = self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1
        self._fields = 0
        self._open(name, attributes)

    def _open(self, name: str, attributes: list[str]) -> None:
        self._fields += 1 + len(attributes) // 2
        limits = self._settings
        if self._fields > limits.max_fields:
            rule = f"the record has more than {limits.max_fields} elements and attributes"
            self._spoil("xml-too-many-fields", rule, "Have it split, or raise max_fields", name)
        elif len(self._nodes) >= limits.max_depth:
            rule = f"nested deeper than {limits.max_depth} levels"
            self._spoil("xml-depth", rule, "Flatten the record, or raise max_depth", name)
        else:
            self._nodes.append(_Node(name, self._inner_path(name), self._attributes(name, attributes)))

    def _inner_path(self, name: str) -> str:
        if len(self._nodes) < 2:  # the record itself is no part of paths inside it
            return name if self._nodes else ""
        return f"{self._nodes[-1].path}/{name}"

    def _attributes(self, name: str, attributes: list[str]) -> dict[str, JSONValue]:
        if not attributes:
            return {}
        names = [f"@{qualified.rpartition(' ')[2]}" for qualified in attributes[::2]]
        members: dict[str, JSONValue] = dict(zip(names, attributes[1::2], strict=True))
        if len(members) != len(names):
            rule = "two attributes differ only by their namespace"
            self._spoil("xml-name-clash", rule, "Have the sender rename one: prefixes are dropped here", name)
        return members

    def _characters(self, text: str) -> None:
        if self._in_record and self._flaw is None:
            self._nodes[-1].parts.append(text)

    def _end(self, _qualified: str) -> None:
        if self._in_record:
            if self._depth == len(self._path):
                self._end_record()
            elif self._flaw is None:
                node = self._nodes.pop()
                self._nodes[-1].add(node.name, node.value(), is_list=node.path in self._lists)
        if self._matched == self._depth:
            self._matched -= 1
        self._depth -= 1

    def _end_record(self) -> None:
        raw = self._cut or self._raw()
        if self._flaw is None and len(raw) > self._settings.max_record_size:
            self._spoil_size()
        if self._flaw is None:
            value = self._nodes[0].value()
            fields: dict[str, JSONValue] = value if isinstance(value, dict) else {"#text": value}
            self._finished.append(Record(number=self._number, line=self._line, fields=fields, raw=raw))
        else:
            raw = raw[: self._settings.max_record_size]
            self._finished.append(self._flaw.spoils_record(self._number, raw))
        self._nodes.clear()
        self._in_record, self._flaw, self._cut = False, None, b""

    def _raw(self) -> bytes:
        """The bytes of the record that ends here, in UTF-8 whatever the file is in."""
        begin, at = self._begin - self._kept_from, self._parser.CurrentByteIndex - self._kept_from
        # Expat stands behind `<order/>` but in front of `</order>`; only a child can make the two look alike.
        is_empty_tag = self._is_childless and self._kept.endswith(b"/>", begin, at)
        return bytes(self._kept[begin : at if is_empty_tag else self._kept.index(b">", at) + 1])

    def _bound(self) -> None:
        """After a piece: hold on to no more bytes than the record that is open may have."""
        reached = max(self._parser.CurrentByteIndex, self._kept_from)
        if self._fed - reached > self._settings.max_record_size:
            rule = f"one tag or comment is longer than {self._settings.max_record_size} bytes"
            raise FlawError(self._here("xml-record-too-large", rule, "Ask the sender, or raise max_record_size"))
        if self._in_record and not self._cut:
            if reached - self._begin <= self._settings.max_record_size:
                reached = self._begin
            else:
                self._cut = bytes(self._kept[self._begin - self._kept_from :][: self._settings.max_record_size])
                if self._flaw is None:
                    self._spoil_size()
        del self._kept[: reached - self._kept_from]
        self._kept_from = reached

    def _spoil_size(self) -> None:
        rule = f"the record is longer than {self._settings.max_record_size} bytes"
        hint = "Have the sender split it, or raise max_record_size"
        self._flaw = Flaw(code="xml-record-too-large", rule=rule, hint=hint, line=self._line, column=self._column)
        self._nodes.clear()

    def _spoil(self, code: str, rule: str, hint: str, name: str) -> None:
        self._flaw = self._here(code, rule, hint, shown=show(name), field=show(name))

    def _here(self, code: str, rule: str, hint: str, *, shown: str = "", field: str = "") -> Flaw:
        line, column = self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1
        return Flaw(code=code, rule=rule, hint=hint, shown=shown, field=field, line=line, column=column)

    def _doctype(self, name: str, _system: str | None, _public: str | None, _internal: bool) -> None:
        hint = "Have the sender leave out <!DOCTYPE ...>: data needs none, and it is how entities attack"
        raise FlawError(self._here("xml-doctype", "the document brings a document type", hint, shown=show(name)))

    def _namespace(self, _prefix: str | None, _uri: str | None) -> None:
        self._namespaces += 1
        if self._namespaces > self._settings.max_namespaces:
            rule = f"more than {self._settings.max_namespaces} namespaces are declared at once"
            raise FlawError(self._here("xml-too-many-namespaces", rule, "Ask the sender, or raise max_namespaces"))

    def _namespace_ended(self, _prefix: str | None) -> None:
        self._namespaces -= 1

    def _syntax(self, error: expat.ExpatError) -> Flaw:
        code, hint = "xml-syntax", "Have the sender write it with an XML library"
        if error.code in _CUT_SHORT:
            code, hint = (
                ("xml-truncated", "Have it sent again, whole") if self._fed else ("xml-empty", "Have it sent again")
            )
        elif error.code == _UNDEFINED_ENTITY:
            hint = "Only &amp; &lt; &gt; &quot; &apos; and numbers are known without a document type"
        rule = f"the document is not well formed: {expat.errors.messages[error.code]}"
        return Flaw(code=code, rule=rule, hint=hint, line=error.lineno, column=error.offset + 1)


def _good_length(text: str) -> int:
    """How much of `text` stands before its first character that is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return len(text)


@dataclass(frozen=True, slots=True)
class _Element:
    """Writes the elements of one record."""

    number: int
    max_depth: int

    def written(self, name: str, value: JSONValue, depth: int = 1) -> str:
        """The element, or none for None, or one for each item of a list."""
        if value is None:
            return ""
        if isinstance(value, list):
            return "".join(self._item(name, item, depth) for item in value)
        self._check_name(name, depth)
        if not isinstance(value, dict):
            return f"<{name}>{self._text(name, value).translate(_IN_TEXT)}</{name}>"
        attributes = "".join(self._attribute(key, inner) for key, inner in value.items() if key.startswith("@"))
        text = self._text(name, value.get("#text")).translate(_IN_TEXT)
        children = (
            self.written(key, inner, depth + 1) for key, inner in value.items() if not key.startswith(("@", "#"))
        )
        return "".join(chain((f"<{name}{attributes}>", text), children, (f"</{name}>",)))

    def _item(self, name: str, item: JSONValue, depth: int) -> str:
        if isinstance(item, list) or item is None:
            raise self._refused(
                "xml-type", "a list inside a list, or an empty item, has no element", "Name the inner one", name
            )
        return self.written(name, item, depth)

    def _attribute(self, key: str, value: JSONValue) -> str:
        name = key[1:]
        self._check_name(name, 1)
        return "" if value is None else f' {name}="{self._text(key, value).translate(_IN_ATTRIBUTE)}"'

    def _check_name(self, name: str, depth: int) -> None:
        if not _WRITTEN_NAME.fullmatch(name) or name.lower() == "xmlns":
            raise self._refused(
                "xml-name", "this cannot name an element", "Rename it: letters, digits, _ . - only", name
            )
        if depth > self.max_depth:
            raise self._refused("xml-depth", f"nested deeper than {self.max_depth} levels", "Flatten it", name)

    def _text(self, name: str, value: JSONValue) -> str:
        if isinstance(value, str):
            if _NO_XML_CHARACTER.search(value):
                raise self._refused("xml-character", "XML cannot hold this control character", "Remove it", name, value)
            return value
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, int | Decimal):
            raise self._refused("xml-type", f"a {type(value).__name__} is no text", "Map it to text or a number", name)
        try:
            return plain_number(value)
        except ValueError:
            raise self._refused("xml-number", "not a plain number", "Map it to a finite number", name) from None

    def _refused(self, code: str, rule: str, hint: str, name: str, text: str = "") -> Exception:
        return unwritable(code, rule, hint, number=self.number, field=name, text=text)
