"""The settings of each format: what the documentation, `check` and the codecs know about them is written once, here."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Encoding: TypeAlias = Literal["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "iso-8859-1", "iso-8859-15"]

_EncodingChoice = Annotated[
    Encoding,
    Field(
        description="How the bytes are text. A byte order mark that says otherwise refuses the file; `utf-16` needs one."
    ),
]
_RecordSize = Annotated[
    int,
    Field(
        ge=64,
        le=16 * 1024 * 1024,
        description="Largest record, in characters (XML: bytes). A longer one is set aside, cut at this size; the rest goes on.",
    ),
]
_Depth = Annotated[int, Field(ge=1, le=200, description="Deepest nesting inside one record.")]
_RECORD_SIZE = 4 * 1024 * 1024
_DEPTH = 64
_XML_NAME = re.compile(r"[^\W\d][\w.\-]*")


class _FormatSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CsvSettings(_FormatSettings):
    """Rows of text (RFC 4180). Values stay text: the mapping says which are numbers and dates."""

    kind: Literal["csv"] = "csv"
    encoding: _EncodingChoice = "utf-8"
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="What stands between two fields.")
    quote: Literal['"', "'"] = Field(
        default='"', description="What encloses a field that holds a delimiter, a line end or itself (then doubled)."
    )
    columns: tuple[str, ...] | None = Field(
        default=None, description="Names of the fields, for files without a header line. Without it, line 1 names them."
    )
    required: tuple[str, ...] = Field(
        default=(),
        description="Fields that the header must name; without them the file is refused before its first row.",
    )
    bare_quotes: Literal["refuse", "keep"] = Field(
        default="refuse",
        description='A quote inside a field that is not enclosed (`3/4" valve`): refuse it, or keep it.',
    )
    formulas: Literal["prefix", "refuse", "keep"] = Field(
        default="prefix",
        description=(
            "Writing text that a spreadsheet would run (begins with = + - @, tab or a line end, and is no number): put ' "
            "before it, refuse it, or keep it for readers that are no spreadsheet."
        ),
    )
    line_end: Literal["\r\n", "\n"] = Field(default="\r\n", description="Line end when writing; reading takes any.")
    max_record_size: _RecordSize = _RECORD_SIZE
    max_record_lines: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Most lines that one enclosed field may span before its quote is missed.",
    )
    max_fields: int = Field(default=1_000, ge=1, le=16_384, description="Most fields of one row.")

    @field_validator("columns")
    @classmethod
    def _columns_are_names(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if columns is not None and (not columns or not all(columns) or len(set(columns)) != len(columns)):
            raise ValueError("columns are names: at least one, none empty, none twice")
        return columns

    @model_validator(mode="after")
    def _required_are_columns(self) -> Self:
        missing = set(self.required) - set(self.columns or self.required)
        if missing:
            raise ValueError(f"required but not in columns: {', '.join(sorted(missing))}")
        return self


class _JsonLimits(_FormatSettings):
    encoding: _EncodingChoice = "utf-8"
    max_record_size: _RecordSize = _RECORD_SIZE
    max_depth: _Depth = _DEPTH
    max_keys: int = Field(default=10_000, ge=1, le=1_000_000, description="Most keys of one object.")
    max_digits: int = Field(
        default=38,
        ge=18,
        le=1_000,
        description="Most digits of one number, before or after the point, exponent included.",
    )


class JsonSettings(_JsonLimits):
    """One JSON document (RFC 8259): an array of objects, one record each, or one object."""

    kind: Literal["json"] = "json"
    pointer: str = Field(
        default="",
        description="Where the records are: a JSON Pointer (RFC 6901) of object keys, such as `/data/items`. Empty: the root.",
    )

    @field_validator("pointer")
    @classmethod
    def _pointer_is_well_formed(cls, pointer: str) -> str:
        if pointer and (not pointer.startswith("/") or re.search(r"~(?![01])", pointer)):
            raise ValueError("a JSON Pointer begins with / and writes ~ as ~0 and / inside a key as ~1")
        return pointer


class JsonLinesSettings(_JsonLimits):
    """One JSON object a line, lines ended by a line feed."""

    kind: Literal["json-lines"] = "json-lines"


class XmlSettings(_FormatSettings):
    """Elements of an XML 1.0 document. Names are local names: prefixes and namespaces are dropped.

    An attribute becomes `@name`, text beside attributes or children `#text`, an element that repeats a list, and a leaf its text.
    """

    kind: Literal["xml"] = "xml"
    encoding: Encoding | None = Field(
        default=None, description="How the bytes are text; without it, as the document declares (UTF-8 if it does not)."
    )
    record: str = Field(description="Path of the element that is one record, from the root: `orders/order`.")
    lists: tuple[str, ...] = Field(
        default=(),
        description="Paths inside the record that are lists even when they occur once: `lines/line`.",
    )
    max_record_size: _RecordSize = _RECORD_SIZE
    max_depth: _Depth = _DEPTH
    max_fields: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Most elements and attributes of one record."
    )
    max_namespaces: int = Field(
        default=100, ge=1, le=10_000, description="Most namespace declarations in force at once."
    )

    @field_validator("record", "lists")
    @classmethod
    def _paths_are_names(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for path in (value,) if isinstance(value, str) else value:
            if not all(_XML_NAME.fullmatch(name) for name in path.split("/")):
                raise ValueError(f"{path!r} is no path of element names such as orders/order, without prefixes")
        return value


FormatSettings: TypeAlias = Annotated[
    CsvSettings | JsonSettings | JsonLinesSettings | XmlSettings, Field(discriminator="kind")
]
