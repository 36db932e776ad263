"""What an HTTP system needs to be told: connection, source, sink. These models are the documentation and the check.

Settings of a system and of a flow's source or target are merged before they come here, so every model repeats nothing and
forbids what it does not know.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from string import Formatter
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from connectors.formats.settings import FormatSettings, JsonSettings
from connectors.http.pointer import JsonPointer
from connectors.secrets import SecretReference
from state.model.estate import Duration

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)  # RFC 9110, 5.6.2
_ADDRESS: Final = re.compile(r"[!-~]+", re.ASCII)
_OURS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "authorization", "accept-encoding", "content-type")
)
PLACEHOLDERS: Final = frozenset(("key", "subject"))


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _plain_path(path: str) -> str:
    if not _ADDRESS.fullmatch(path) or not path.startswith("/") or path.startswith("//"):
        raise ValueError("a path begins with one / and has no blanks and no letters beyond ASCII: /purchase-orders")
    if "\\" in path or "#" in path or ".." in path.partition("?")[0].split("/"):
        raise ValueError("a path has no backslash, no # and no .. step")
    return path


def _template(path: str) -> str:
    _plain_path(path)
    _placeholders(path)
    return path


def _placeholders(template: str) -> set[str]:
    """The names in a template; raises ValueError for one that nothing can fill."""
    names = set()
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if name not in PLACEHOLDERS or form or conversion:
            raise ValueError(f"{{{name}}} is unknown here: use {{key}} (our idempotency key) or {{subject}}")
        names.add(name)
    return names


def _text_template(template: str) -> str:
    if not _placeholders(template):
        raise ValueError("name what it must equal: {key} or {subject}")
    return template


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header name is letters, digits and hyphens (RFC 9110)")
    return name


PlainPath = Annotated[str, AfterValidator(_plain_path), Field(max_length=2000)]
PathTemplate = Annotated[str, AfterValidator(_template), Field(max_length=2000)]
TextTemplate = Annotated[str, AfterValidator(_text_template), Field(max_length=200)]
HeaderName = Annotated[str, AfterValidator(_header_name), Field(max_length=100)]
ParameterName = Annotated[str, Field(min_length=1, max_length=100, description="name of a query parameter")]


class BearerAuth(_Settings):
    """`Authorization: Bearer <token>` (RFC 6750)."""

    kind: Literal["bearer"]
    token: SecretReference


class BasicAuth(_Settings):
    """`Authorization: Basic <user:password>` (RFC 7617), in UTF-8."""

    kind: Literal["basic"]
    user: str = Field(
        min_length=1, max_length=200, pattern=r"^[^:\x00-\x1f\x7f]+$", description="the account; no secret, no colon"
    )
    password: SecretReference


class HeaderAuth(_Settings):
    """A secret in a header of the server's own, such as `X-Api-Key`."""

    kind: Literal["header"]
    name: HeaderName = Field(description="header that carries it")
    value: SecretReference


Auth = Annotated[BearerAuth | BasicAuth | HeaderAuth, Field(discriminator="kind")]


class ConnectionSettings(_Settings):
    """How the server is reached; equal for a source and a sink."""

    base_url: str = Field(max_length=2000, description="http://host:port/prefix or https://...; paths are put after it")
    headers: dict[HeaderName, str] = Field(default_factory=dict, max_length=50, description="sent with every request")
    auth: Auth | None = Field(None, description="how we say who we are: bearer, basic or header; secrets by reference")
    ca_file: str | None = Field(
        None,
        description="PEM file of the only authorities to trust; default those of this machine. From the estate folder",
    )
    byte_limit: int = Field(
        16 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="largest answer in bytes, after decompression"
    )

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_origin(cls, url: str) -> str:
        if not _ADDRESS.fullmatch(url) or "\\" in url:
            raise ValueError("the address has blanks, control characters or letters beyond ASCII")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError("the address begins with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("no user or password in the address: use auth with a secret reference")
        if not parts.hostname or parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("the address is scheme, host, port and a path prefix: https://erp.example:8443/api")
        if parts.port == 0:
            raise ValueError("port 0 is no port")
        if ".." in parts.path.split("/"):
            raise ValueError("the path prefix has no .. step")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OURS:
                raise ValueError(f"{name} is not set here" + ("; use auth" if name.lower() == "authorization" else ""))
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"the value of {name} has characters that a header cannot carry")
        return headers


# --- source ---------------------------------------------------------------------------------------------------------


class InstantStyle(StrEnum):
    """How a server writes an instant, read and sent back alike."""

    ISO = "iso"  # 2026-03-01T08:00:00Z, with offset
    LOCAL = "local"  # 2026-03-01T08:00:00 in `timezone`
    EPOCH = "epoch"  # seconds since 1970
    EPOCH_MS = "epoch_ms"  # milliseconds since 1970


class InstantCursor(_Settings):
    """Asks for what changed since the latest change seen, less an overlap.

    The overlap catches what was committed late under an earlier time and clocks with whole seconds; what is seen again in it
    is known and left out.
    """

    kind: Literal["instant"]
    parameter: ParameterName = Field(description="query parameter that carries the instant")
    field: JsonPointer = Field(description="pointer inside a record to its change time: /updated_at")
    overlap: Duration = Field(timedelta(minutes=5), description="how far back is asked again each time")
    style: InstantStyle = InstantStyle.ISO
    timezone: str = Field("UTC", description="IANA name, for style local")
    initial: str = Field("", max_length=100, description="sent at the first time, as it stands; empty: no parameter")

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{name!r} is no IANA time zone such as Europe/Berlin") from None
        return name


class IntegerCursor(_Settings):
    """Asks for ids after the highest seen, less an overlap.

    A row with a lower id may be committed after one with a higher id; the overlap is how many ids back that may be.
    """

    kind: Literal["integer"]
    parameter: ParameterName = Field(description="query parameter that carries the number")
    field: JsonPointer = Field(description="pointer inside a record to its rising number: /id")
    overlap: int = Field(100, ge=0, le=1_000_000, description="how many numbers back are asked again each time")
    initial: str = Field("", max_length=100, description="sent at the first time, as it stands; empty: no parameter")


class TokenCursor(_Settings):
    """The server hands out its own token of where we are."""

    kind: Literal["token"]
    parameter: ParameterName = Field(description="query parameter that carries the token")
    pointer: JsonPointer = Field(description="pointer inside the answer to the token for the next poll: /next_token")
    initial: str = Field("", max_length=1000, description="sent at the first time, as it stands; empty: no parameter")


Cursor = Annotated[InstantCursor | IntegerCursor | TokenCursor, Field(discriminator="kind")]


class LinkInBody(_Settings):
    """The answer holds the address of the next page; it must lead to the same server."""

    kind: Literal["next_link"]
    pointer: JsonPointer = Field(
        description="pointer to the address: /links/next; absent, null or empty on the last page"
    )


class LinkHeader(_Settings):
    """`Link: <address>; rel="next"` (RFC 8288); it must lead to the same server."""

    kind: Literal["link_header"]


class PageToken(_Settings):
    """The answer holds a token that asks for the next page."""

    kind: Literal["token"]
    parameter: ParameterName
    pointer: JsonPointer = Field(description="pointer to the token; absent, null or empty on the last page")


class PageNumber(_Settings):
    """Pages are counted; the one that holds fewer than `size` records is the last."""

    kind: Literal["page"]
    parameter: ParameterName = "page"
    first: int = Field(1, ge=0, le=1, description="number of the first page")
    size: int = Field(100, ge=1, le=100_000, description="records a page, as the server gives them")
    size_parameter: ParameterName | None = Field(None, description="query parameter that asks for the size")


class Offset(_Settings):
    """Records are counted; the page that holds fewer than `size` is the last."""

    kind: Literal["offset"]
    parameter: ParameterName = "offset"
    size: int = Field(100, ge=1, le=100_000, description="records a page, as the server gives them")
    size_parameter: ParameterName | None = Field("limit", description="query parameter that asks for the size")


Pagination = Annotated[LinkInBody | LinkHeader | PageToken | PageNumber | Offset, Field(discriminator="kind")]


class HttpSourceSettings(ConnectionSettings):
    """Polls a list of records."""

    path: PlainPath = Field(description="what is read, after base_url: /order-confirmations")
    query: dict[ParameterName, str] = Field(default_factory=dict, max_length=50, description="sent with every page")
    format: FormatSettings = Field(JsonSettings(), description="how a page is written, and where its records are")
    id: JsonPointer | None = Field(
        "/id", description="pointer inside a record to what names it; null: its content names it"
    )
    revision: JsonPointer | None = Field(
        None,
        description="pointer inside a record to its version or change time; default the cursor's field. Without either, "
        "the last value of each record is remembered, and a change of it is its next version",
    )
    changed_at: JsonPointer | None = Field(None, description="pointer to the ISO 8601 instant at which it happened")
    cursor: Cursor | None = Field(None, description="how only the news are asked for; without it all is read each time")
    pagination: Pagination | None = Field(None, description="how the next page is found; without it there is one page")
    max_pages: int = Field(10_000, ge=1, le=1_000_000, description="a longer list is a loop of the server's making")

    @model_validator(mode="after")
    def _body_pointers_need_json(self) -> Self:
        if self.looks_inside and not isinstance(self.format, JsonSettings):
            raise ValueError("a pointer into the answer needs format json; use link_header, page or offset")
        return self

    @property
    def looks_inside(self) -> bool:
        """Whether something besides the records is read from a page."""
        return isinstance(self.pagination, LinkInBody | PageToken) or isinstance(self.cursor, TokenCursor)

    @property
    def revision_field(self) -> str | None:
        """Where a record's version stands, if it has one."""
        if self.revision is None and isinstance(self.cursor, InstantCursor | IntegerCursor):
            return None if self.cursor.field == self.id else self.cursor.field
        return self.revision


# --- sink -----------------------------------------------------------------------------------------------------------


class Meaning(StrEnum):
    """What an answer means for the delivery."""

    ACCEPTED = "accepted"
    MODIFIED = "modified"  # accepted, with changes of the target's own
    DELAYED = "delayed"  # taken, the answer comes later
    DUPLICATE = "duplicate"  # it already had it
    REJECTED = "rejected"  # wrong, and stays wrong
    TRANSIENT = "transient"  # not taken; may be taken later
    NOT_CONNECTED = "not_connected"  # not taken, and nothing else would be: stop the lane
    IN_DOUBT = "in_doubt"  # nobody can say


class Condition(_Settings):
    """What an answer looks like; all that is given must hold."""

    status: tuple[Annotated[int, Field(ge=100, le=999)], ...] | None = Field(
        None, description="status codes, one or a list; default any"
    )
    pointer: JsonPointer | None = Field(None, description="pointer inside the answer that the next three look at")
    exists: bool | None = Field(None, description="whether something other than null stands there")
    equals: Annotated[str | int | bool | None, Field(union_mode="smart")] = Field(
        None, description="the value that stands there"
    )
    matches: str | None = Field(
        None, max_length=200, description="a pattern with * and ? for the whole text there, upper and lower case alike"
    )

    @field_validator("status", mode="before")
    @classmethod
    def _one_status_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        looks = self.exists is not None or "equals" in self.model_fields_set
        if looks and self.pointer is None:
            raise ValueError("exists and equals need a pointer")
        if self.pointer is not None and not looks and self.matches is None:
            raise ValueError("a pointer needs one of exists, equals, matches")
        if self.status is None and not looks and self.matches is None:
            raise ValueError("say when: status, pointer or matches")
        return self

    @property
    def looks_inside(self) -> bool:
        """Whether the answer must be JSON for this to be decided."""
        return self.pointer is not None


class Rule(_Settings):
    """`when` an answer looks so, its `outcome` is that. The first rule that holds decides."""

    when: Condition
    outcome: Meaning
    message: JsonPointer | None = Field(None, description="pointer to the server's words for people")
    reference: JsonPointer | None = Field(None, description="pointer to the server's own number; default the sink's")
    hint: str = Field("", max_length=500, description="what to do about it, for the person who finds it parked")


class ProbeSettings(_Settings):
    """How the target is asked whether it has a delivery: GET, and what must be in the answer.

    A path that ends in our key answers 404 for no. A search in the query must say in `match` how a record is recognised:
    servers leave out a parameter they do not know, and then everything looks found.
    """

    path: PathTemplate = Field(description="/orders/by-key/{key} or /orders?reference={subject}")
    records: JsonPointer = Field("", description="pointer to the record, or to the list of records, in the answer")
    match: dict[JsonPointer, TextTemplate] = Field(
        default_factory=dict,
        max_length=5,
        description="pointer inside a record: what it must equal, {key} or {subject}",
    )
    rules: tuple[Rule, ...] = Field((), max_length=50, description="what a record found means; default accepted")
    reference: JsonPointer | None = Field(None, description="pointer inside a record to its number; default the sink's")

    @model_validator(mode="after")
    def _a_search_needs_a_match(self) -> Self:
        if not _placeholders(self.path):
            raise ValueError("the path of a probe holds {key} or {subject}")
        if self.is_search and not self.match:
            raise ValueError("a search in the query needs match, for example {/reference: '{subject}'}")
        return self

    @property
    def asks_by_key(self) -> bool:
        """Whether what it finds is surely this delivery, and not another version of the same document."""
        return any("key" in _placeholders(template) for template in (self.path.partition("?")[0], *self.match.values()))

    @property
    def is_search(self) -> bool:
        """Whether the question stands in the query, so that "no" is an empty list and 404 a wrong address."""
        return not _placeholders(self.path.partition("?")[0])


class BatchSettings(_Settings):
    """Several deliveries in one POST: an array of records, answered one by one.

    Each record carries its idempotency key. A batch that is refused as a whole must have had no effect.
    """

    path: PlainPath | None = Field(None, description="where arrays go; default the sink's path")
    wrap: str | None = Field(None, min_length=1, max_length=100, description="field that takes the array; default bare")
    key_field: str = Field("idempotency_key", min_length=1, max_length=100, description="field added to each record")
    results: JsonPointer = Field("", description="pointer to the list of answers")
    result_key: JsonPointer | None = Field(
        None, description="pointer inside one answer to the key it belongs to; default the order of the records"
    )
    status: JsonPointer = Field(
        "/status", description="pointer inside one answer to its HTTP status code, if it has one"
    )
    rules: tuple[Rule, ...] = Field((), max_length=50, description="what one answer means, before its status code")
    body_limit: int = Field(1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="largest request in bytes")


class HttpSinkSettings(ConnectionSettings):
    """Posts each delivery with an idempotency key."""

    path: PathTemplate = Field(description="where deliveries go, after base_url; {subject} and {key} are filled in")
    method: Literal["POST", "PUT"] = Field("POST", description="how a delivery is sent")
    key_header: HeaderName = Field("Idempotency-Key", description="header that carries our idempotency key")
    reference: JsonPointer = Field("/id", description="pointer inside the answer to the target's own number")
    rules: tuple[Rule, ...] = Field((), max_length=50, description="what answers mean, before their status code")
    conflict: Literal["by_key", "duplicate", "rejected", "in_doubt"] = Field(
        "by_key", description="what 409 means; by_key: duplicate if it is our own key that it holds, else rejected"
    )
    server_errors: Literal["in_doubt", "transient"] = Field(
        "in_doubt", description="500, 502, 504: transient only for a server that surely did nothing then"
    )
    ask_again: Duration = Field(timedelta(seconds=30), description="how soon a delayed one is asked for")
    probe: ProbeSettings | None = Field(
        None, description="how the target is asked for our key; without it, it cannot be"
    )
    batch: BatchSettings | None = Field(
        None, description="several in one call, with limits.batch; without it one by one"
    )
