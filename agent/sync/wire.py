"""What two agents say to each other: the heads of their frames, and why one is refused.

    POST /sync/1/hello    Hello -> Welcome
    POST /sync/1/push     Push  -> PushReply
    POST /sync/1/pull     Pull  -> PullReply
    POST /sync/1/answer   Answer -> {}
    any of them                 -> Refusal, as application/problem+json

Both sides speak the lower of their versions (`agree`), back to `OLDEST`. Within a version fields are only added, and with a
default, which is what an older agent means that leaves one out. What a newer one adds is kept and passed on, and is never an
error. A field that a newer version adds is named neither `estates` nor `segments`: those say what follows a head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from agent.sync.audit_word import AuditWord
from agent.sync.frames import mark_text, parse_mark
from agent.sync.needs import Fence, Reason, Standing
from state.bundles import Bundle, BundleState
from state.gaps import Beginning, Gap
from state.model.errors import (
    DeniedError,
    DistctlError,
    FencedError,
    NotConnectedError,
    RejectedError,
    TransientError,
)
from state.model.estate import Name
from state.model.ids import EstateHash
from state.model.stream import Mark, Nonce
from state.model.visible import shown, visible
from state.retention import Held

VERSION: Final = 1
OLDEST: Final = 1
"""The oldest version that is still spoken: the one before the current, once there is one."""

PROBLEM_TYPE: Final = "application/problem+json"
REFUSAL_BYTES: Final = 64 * 1024
"""Of a refusal: nobody reads further."""

LONGEST_PAUSE: Final = timedelta(hours=1)
"""A refusal may ask for more; nobody waits longer."""

_FENCED: Final = "fenced"
_STATUS: Final = {_FENCED: 409, "denied": 403, "version": 426, "malformed": 400, "too-large": 413}
_BUSY: Final = 503
_LARGEST: Final = 2**63 - 1
_NONCE: Final = re.compile(r"[0-9]{1,18}\.[0-9A-Za-z_-]{1,64}")
_SHOWN: Final = 500
_MOST_STREAMS: Final = 1000


def agree(theirs: int, *, ours: int = VERSION, oldest: int = OLDEST) -> int:
    """The version to speak with an agent that speaks `theirs`. Raises `RejectedError` where they have none in common."""
    if theirs < oldest:
        spoken = f"{oldest} to {ours}" if oldest < ours else f"{ours}"
        raise RejectedError(
            f"the other agent speaks version {theirs} of the exchange, and this one {spoken}",
            rule=f"version {oldest} or later is needed",
            shown=str(theirs),
            hint=f"install a distctl there that speaks version {oldest} or later: `distctl agents list` has its software",
            code="version",
        )
    return min(theirs, ours)


# --- what stands in a head ----------------------------------------------------------------------------------------


def _mark(value: object) -> Mark:
    try:
        return value if isinstance(value, Mark) else parse_mark(value)
    except RejectedError as error:
        raise ValueError(error.rule) from None


def _nonce(value: object) -> Nonce:
    if isinstance(value, Nonce):
        return value
    if not isinstance(value, str) or _NONCE.fullmatch(value) is None:
        raise ValueError("a nonce is a count, a dot and a secret")
    return Nonce.parse(value)


Tier = Annotated[int, Field(ge=1, le=3)]
WireMark = Annotated[Mark, PlainValidator(_mark), PlainSerializer(mark_text)]
WireNonce = Annotated[Nonce, PlainValidator(_nonce), PlainSerializer(str)]
WireHash = Annotated[EstateHash, Field(pattern=r"^[0-9a-f]{32}$")]
Marks = dict[Tier, WireMark]
Epoch = Annotated[int, Field(strict=True, ge=1, le=_LARGEST)]
KnownEpoch = Annotated[int, Field(strict=True, ge=0, le=_LARGEST, description="0: not known")]
Version = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class Head(_Wire):
    """What every head says: the version it is written in, its sender's epoch, and the other's newest that the sender knows."""

    version: Version
    epoch: Epoch
    peer_epoch: KnownEpoch = 0

    def to_head(self) -> dict[str, Any]:
        """As the head of a frame; what a newer version added to it goes along."""
        return self.model_dump(mode="json")


class WireBeginning(_Wire):
    """Where a stream begins that was let go up to `mark`; the event there was recorded at `until`."""

    epoch: Epoch
    tier: Tier
    mark: WireMark
    until: AwareDatetime

    @classmethod
    def of(cls, epoch: int, tier: int, beginning: Beginning) -> Self:
        """Where the stream of that tier begins."""
        return cls(epoch=epoch, tier=tier, mark=beginning.mark, until=beginning.until)

    def beginning(self) -> Beginning:
        """The same, without which stream it is."""
        return Beginning(mark=self.mark, until=self.until)


class WireGap(_Wire):
    """Events of the other's stream that its sender held no more, as `state.gaps.Gap` has them."""

    epoch: Epoch
    tier: Tier
    first: Annotated[int, Field(strict=True, ge=1, le=_LARGEST)]
    last: Annotated[int, Field(strict=True, ge=1, le=_LARGEST)]
    since: AwareDatetime | None = None
    until: AwareDatetime
    of_give_back: bool = False

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("a gap ends behind its beginning")
        return self

    @classmethod
    def of(cls, gap: Gap) -> Self:
        """A gap that is known here."""
        return cls(
            epoch=gap.epoch,
            tier=gap.tier,
            first=gap.first,
            last=gap.last,
            since=gap.since,
            until=gap.until,
            of_give_back=gap.of_give_back,
        )

    def gap(self) -> Gap:
        """The gap that the other told of."""
        return Gap(
            epoch=self.epoch,
            tier=self.tier,
            first=self.first,
            last=self.last,
            since=self.since,
            until=self.until,
            of_give_back=self.of_give_back,
        )


class WireHeld(_Wire):
    """What the hub's last verified backup holds of a site's streams: (epoch, tier, sequence) of each."""

    taken_at: AwareDatetime
    streams: list[tuple[Epoch, Tier, Annotated[int, Field(ge=0, le=_LARGEST)]]]

    @classmethod
    def of(cls, held: Held) -> Self:
        """What is said of it."""
        return cls(taken_at=held.taken_at, streams=[(*stream, seq) for stream, seq in sorted(held.streams.items())])

    def held(self) -> Held:
        """What was said."""
        return Held(taken_at=self.taken_at, streams={(epoch, tier): seq for epoch, tier, seq in self.streams})


class BundleHead(_Wire):
    """The estate that the hub has in force, in short: `state.bundles.Bundle` as it travels."""

    number: int = Field(strict=True, ge=1, lt=_LARGEST)
    estate: WireHash
    adopted_by: str = Field(max_length=200, description="who put it in force at the hub")
    adopted_at: AwareDatetime
    seal: str = Field(pattern=r"^([0-9a-f]{2}){1,128}$", description="the hub's signature, hexadecimal")

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The head of a bundle that is sealed."""
        return cls(
            number=bundle.number,
            estate=bundle.estate,
            adopted_by=bundle.adopted_by,
            adopted_at=bundle.adopted_at,
            seal=bundle.seal.hex(),
        )

    def bundle(self) -> Bundle:
        """The bundle that came with this head."""
        return Bundle(
            number=self.number,
            estate=self.estate,
            adopted_by=visible(self.adopted_by),
            adopted_at=self.adopted_at,
            seal=bytes.fromhex(self.seal),
            state=BundleState.CAME,
        )


class _Introduction(Head):
    """An agent presents itself."""

    site: Name
    software: str = Field("", max_length=200)
    sent: Marks = {}
    acknowledged: Marks = {}
    received: Marks = {}
    epoch_before: KnownEpoch = 0
    received_before: Marks = {}
    epoch_ended: KnownEpoch = 0
    acknowledged_ended: Marks = {}
    begins: list[WireBeginning] = Field(
        [], max_length=_MOST_STREAMS, description="streams of which something was let go"
    )
    gaps: list[WireGap] = Field([], max_length=_MOST_STREAMS, description="what is missing here of the other's streams")
    estate: WireHash | None = Field(None, description="in force there")
    audit: AuditWord | None = None

    def require_of(self, site: str) -> None:
        """Raises `RejectedError` where an agent gives another name than it is known by: fences are put up by name."""
        if self.site != site:
            raise RejectedError(
                f"the agent of {site} says that it is {self.site}",
                place="site",
                rule="an agent speaks for the site that its certificate is of",
                shown=self.site,
                hint=f"start it with the store of {site}, or enrol it as {self.site}",
                code="malformed:site",
            )

    def standing(self) -> Standing:
        """What the agent says of the streams between the two."""
        return Standing(
            site=self.site,
            epoch=self.epoch,
            sent=self.sent,
            acknowledged=self.acknowledged,
            peer_epoch=self.peer_epoch,
            received=self.received,
            epoch_before=self.epoch_before,
            received_before=self.received_before,
            epoch_ended=self.epoch_ended,
            acknowledged_ended=self.acknowledged_ended,
        )

    @classmethod
    def of(cls, standing: Standing, *, version: int, **further: Any) -> Self:
        """The introduction of the agent of which `standing` speaks; `further` are the other fields."""
        return cls(
            version=version,
            site=standing.site,
            epoch=standing.epoch,
            peer_epoch=standing.peer_epoch,
            sent=dict(standing.sent),
            acknowledged=dict(standing.acknowledged),
            received=dict(standing.received),
            epoch_before=standing.epoch_before,
            received_before=dict(standing.received_before),
            epoch_ended=standing.epoch_ended,
            acknowledged_ended=dict(standing.acknowledged_ended),
            **further,
        )


class Receipt(_Wire):
    """That in the hub's `epoch` so much was there of what a site sends in its epoch `of`, under the hub's mark."""

    epoch: Epoch
    of: Epoch
    received: Marks
    mark: str = Field(pattern=r"^[0-9a-f]{32}$", description="`agent.sync.proofs`")


class Hello(_Introduction):
    """A site dials. `version` is the newest that it speaks."""

    nonce: WireNonce | None = Field(None, description="to be presented next; None: it was given none yet")
    health: dict[str, Any] = {}
    bundle: BundleHead | None = Field(None, description="the last that the hub gave it")
    receipt: Receipt | None = Field(None, description="the last that the hub gave it")
    fenced: str = Field("", max_length=1000, description="why its store may not go on, where it found that itself")


class Welcome(_Introduction):
    """The hub answers. `version` is the one that both speak from now on."""

    time: AwareDatetime = Field(description="the hub's clock, to compare with")
    nonce: WireNonce | None = Field(None, description="to be presented next, where it is given anew")
    begin_epoch: KnownEpoch = Field(
        0, description="the site was adopted: begin this epoch and say hello again; 0: go on"
    )
    bundle: BundleHead | None = Field(None, description="in force at the hub, for the site to put in force")
    wanted: list[WireHash] = Field([], description="estates that are still waited for: the frame with them may be lost")


class Push(Head):
    """A site hands up what is new. The nonce is the one that it had when it said hello, and is not used up."""

    nonce: WireNonce
    sent: Marks | None = Field(None, description="where the streams that it hands up end")
    bundles: list[BundleHead] = Field(
        [], description="under which the hub once had the estates in force that come along"
    )


class PushReply(Head):
    """What the hub has of the site's streams by now, and the estates that some of it waits for."""

    received: Marks = {}
    wanted: list[WireHash] = []
    receipt: str = Field(
        "", pattern=r"^([0-9a-f]{32})?$", description="the hub's mark under that; empty: it gives none"
    )

    def to_receipt(self) -> Receipt | None:
        """What the site keeps of it and shows at its next hello."""
        if not self.receipt or not self.peer_epoch:
            return None
        return Receipt(epoch=self.epoch, of=self.peer_epoch, received=self.received, mark=self.receipt)


ErrandId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class TokenScope(_Wire):
    """What a token was made for."""

    name: str = Field(max_length=100)
    roles: list[str] = Field(max_length=50)
    sites: list[str] | None = Field(None, description="where it holds; null is every site")
    issued_by: str = Field("", max_length=200)


class Errand(_Wire):
    """What a person at the hub asks of a site: a call of its control API, and for whom the hub vouches."""

    id: ErrandId
    method: Literal["GET", "POST"]
    target: str = Field(pattern=r"^/[\x21-\x7e]*$", max_length=20_000, description="the path with its query")
    seconds: float = Field(ge=0, le=24 * 3600, description="after which nobody waits for the answer any more")
    name: str = Field(max_length=200, description="of whoever asks")
    person: str | None = Field(None, max_length=200, description="their id in the estate")
    token: TokenScope | None = Field(None, description="by which they ask")


class Answer(Head):
    """What a site's control API answered to an errand."""

    errand: ErrandId
    status: Annotated[int, Field(ge=200, le=599)]
    type: str = Field("", pattern=r"^[\x20-\x7e]*$", max_length=200, description="of the body")
    body: str = Field("", description="the text of the answer")


class Pull(Head):
    """A site asks for what comes down, and uses up its nonce. `attempt` is chosen with the nonce and kept until the reply."""

    nonce: WireNonce
    attempt: str = Field(min_length=1, max_length=64)
    received: Marks = {}
    sent: Marks | None = Field(None, description="where the streams that it hands up end")
    wanted: list[WireHash] = []
    wait_seconds: float = Field(0, ge=0, le=3600, description="how long the hub may wait for news before it answers")
    health: dict[str, Any] = {}
    audit: AuditWord | None = None
    bundle: int | None = Field(None, ge=0, description="the number of the last one here; None: it takes no bundles")
    run: str = Field("", max_length=64, description="of the process that asks; empty: it knows no errands")
    errands: list[ErrandId] = Field([], max_length=1000, description="those that it has, and whose answers are not up")


class PullReply(Head):
    """What came down, and the nonce for the next time."""

    nonce: WireNonce
    errands: list[Errand] = []
    received: Marks = {}
    sent: Marks | None = Field(None, description="where the streams that it hands down end")
    backed_up: WireHeld | None = Field(None, description="what may be let go there, once it is old; None: nothing")
    audit: AuditWord | None = None
    bundle: BundleHead | None = Field(None, description="in force at the hub")


Said = TypeVar("Said", bound=BaseModel)


def read(kind: type[Said], head: Mapping[str, Any]) -> Said:
    """The head as that kind says it.

    Raises `RejectedError`: `version`, where the sender's is spoken no more, or `malformed`, naming the first field that is wrong.
    """
    if type(version := head.get("version")) is int:
        agree(version)
    try:
        orjson.dumps(head)  # what nests deeper than can be written could not be passed on
        return kind.model_validate(head)
    except orjson.JSONEncodeError:
        raise _malformed(kind, "", "it nests too deeply", None) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = visible(".".join(str(part) for part in first["loc"])[:80])
        raise _malformed(kind, place, first["msg"].removeprefix("Value error, "), first["input"]) from None


def _malformed(kind: type[BaseModel], place: str, what: str, value: object) -> RejectedError:
    name = kind.__name__
    return RejectedError(
        f"the head of {name} is malformed: {place}: {what}" if place else f"{name} is malformed: {what}",
        place=place,
        rule=f"a head is what {name} says in the version that both agreed on",
        shown=shown(value),
        hint="nothing of it was taken in; compare the versions of both agents: `distctl agents list`",
        code="malformed",
    )


# --- refused ------------------------------------------------------------------------------------------------------


class Refusal(_Wire):
    """Why an agent does not answer: a problem of RFC 9457, with what to do.

    `code` is `fenced:REASON` (`agent.sync.needs.Reason`), `denied`, `version`, `malformed` or `too-large`, all of which may say
    more behind a colon. Whatever else it is, it may go over.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    site: str = Field("", description="whose store is at fault, where one is fenced")
    needs_version: int | None = Field(None, description="the oldest version that would do")
    retry_after: float | None = Field(None, ge=0, description="seconds")

    @classmethod
    def of(cls, error: DistctlError) -> Self:
        """The refusal that tells the other agent of `error`."""
        pause = error.retry_after if isinstance(error, TransientError | NotConnectedError) else None
        return cls._of(
            _code(error),
            detail=error.message,
            hint=error.hint,
            needs_version=OLDEST if error.code == "version" else None,
            retry_after=pause.total_seconds() if pause else None,
        )

    @classmethod
    def of_fence(cls, fence: Fence, *, hint: str) -> Self:
        """The refusal that tells the other agent that one of the two is fenced."""
        return cls._of(f"{_FENCED}:{fence.reason}", detail=fence.detail, hint=hint, site=fence.site)

    @classmethod
    def _of(cls, code: str, **further: Any) -> Self:
        kind = code.partition(":")[0]
        return cls(
            type=f"urn:distctl:problem:{code}", title=code, status=_STATUS.get(kind, _BUSY), code=code, **further
        )

    @classmethod
    def of_answer(cls, status: int, body: bytes) -> Self:
        """What an answer that is no success says, whoever gave it: a proxy between the two speaks otherwise."""
        try:
            return cls.model_validate_json(body[:REFUSAL_BYTES])
        except ValidationError:
            return cls(
                title="unexplained",
                status=status,
                detail=f"the hub's address answered {status} without saying why",
                code="unexplained",
                hint="look whether a proxy stands between, and whether the address is that of a hub",
            )

    @property
    def fence(self) -> Fence | None:
        """The fence that this tells of; None where it tells of none that this version knows."""
        kind, _, reason = self.code.partition(":")
        if kind != _FENCED or reason not in set(Reason):
            return None
        return Fence(self.site, Reason(reason), self.detail)

    def to_json(self) -> bytes:
        """The body of the answer."""
        return orjson.dumps(self.model_dump(mode="json"))

    def error(self) -> DistctlError:
        """What the other agent's refusal means here; `TransientError` where it may go over."""
        message, hint = visible(self.detail)[:_SHOWN], visible(self.hint)[:_SHOWN]
        match self.code.partition(":")[0]:
            case "fenced":
                return FencedError(message, hint=hint, code=self.code)
            case "denied":
                return DeniedError(message, hint=hint, code=self.code)
            case "version" | "malformed" | "too-large":
                return RejectedError(message, hint=hint, code=self.code)
            case _:
                return TransientError(message, retry_after=self._pause(), hint=hint, code=visible(self.code)[:40])

    def _pause(self) -> timedelta | None:
        if self.retry_after is None:
            return None
        return timedelta(seconds=min(self.retry_after, LONGEST_PAUSE.total_seconds()))


def _code(error: DistctlError) -> str:
    """The code of the refusal: that of the error, behind what the other agent is to make of it."""
    if error.code.partition(":")[0] in _STATUS:
        return error.code
    match error:
        case FencedError():
            return f"{_FENCED}:{error.code}"
        case DeniedError():
            return f"denied:{error.code}"
        case RejectedError():
            return f"malformed:{error.code}"
        case _:
            return error.code
