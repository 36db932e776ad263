"""The wire types of the control API: what the console, `distctl` and scripts are told.

Every answer says how fresh it is and whose. States and kinds are text here and not enumerations, and fields that a client does
not know are kept: an older client reads the answers of a newer agent and passes on what it does not understand.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from state.model.clock import from_millis


def _from_store(value: object) -> object:
    """The store keeps instants as milliseconds; the wire has RFC 3339."""
    return from_millis(value) if isinstance(value, int) else value


Instant = Annotated[datetime, BeforeValidator(_from_store, json_schema_input_type=datetime)]


class _Wire(BaseModel):
    # Built when first used: a command needs two or three of these and pays for no other.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class Answer(_Wire):
    """What every answer says of itself: the moment it was true, and whose agent said it."""

    as_of: Instant
    site: str
    environment: str


Row = TypeVar("Row", bound=BaseModel)


class Page(Answer, Generic[Row]):
    """Some rows of a list. `next` is the cursor of the page after this one; None: there is none."""

    items: list[Row]
    next: str | None = None


class Condition(_Wire):
    """Something that is so now and that a person may have to look at. `status --fail-on` names them."""

    name: str = Field(
        description="parked, waiting-behind, in-doubt, unreachable, held, frozen, backlog, audit, draining, sites, "
        "unknown-estate or trouble"
    )
    count: int
    text: str


class Counts(_Wire):
    """How many deliveries stand where. Each is in one state; those `waiting_behind` are some of the pending ones."""

    pending: int = 0
    inflight: int = 0
    in_doubt: int = 0
    delayed: int = 0
    parked: int = Field(0, description="deliveries only; records that were set aside never became any")
    delivered: int = 0
    superseded: int = 0
    discarded: int = 0
    waiting_behind: int = Field(
        0, description="of the pending: newer ones of a key whose oldest is parked, or in doubt and waits for a person"
    )

    @property
    def backlog(self) -> int:
        """Owed and on its way: everything unsettled that was neither set aside nor waits behind what a person must decide."""
        return self.pending + self.inflight + self.in_doubt + self.delayed - self.waiting_behind

    @property
    def owed(self) -> int:
        """Everything unsettled."""
        return self.backlog + self.waiting_behind + self.parked


class LaneRow(Counts):
    """One leg (flow, target). `due_since` is when its longest waiting key could have been sent; None: nothing waits."""

    flow: str
    target: str
    tier: int
    order: str
    state: str = Field(description="what a person or a calendar did: open (it delivers), held or frozen")
    shadow_of: str | None = None
    breaker: str = Field(description="what the target does: closed (it is reached) or open (it is not, and calls wait)")
    breaker_reason: str = ""
    retry_at: Instant | None = None
    due_since: Instant | None = None
    last_success_at: Instant | None = None
    alike: int = 0
    different: int = 0


class FlowRow(Counts):
    """One flow over all its lanes, shadow lanes left out, and what its source yielded."""

    flow: str
    owner: str = ""
    tier: int
    contract: str = ""
    source: str = ""
    targets: list[str]
    in_force: bool = Field(description="false: the estate no longer has it; what it owes is still settled")
    records: int = 0
    unreadable: int = 0
    last_batch_at: Instant | None = None


class AuditFinding(_Wire):
    """An audit does not go on as it was known: another agent's by what is known here, this one's by what others know."""

    audit_of: str = Field(description="the site whose audit it is")
    kind: str = Field(description="restored, cut, rewritten or damaged")
    text: str
    to_do: str
    witnesses: list[str] = Field([], description="whose agents knew it otherwise")
    known: int = Field(0, description="how far it was known")
    after: int = Field(0, description="the last entry of both")
    kept: int = Field(0, description="entries beyond that which are kept here")
    decisions: int = Field(0, description="of those kept: what a person decided")
    noticed_at: Instant


class Status(Answer):
    """The agent in one answer."""

    version: str
    started_at: Instant
    estate: str
    estate_from: str = Field("", description="the bundle of the hub that is in force; empty: the estate folder")
    estate_hash: str
    events: int = Field(description="that ever came in or arose here")
    let_go: int = Field(0, description="of them, by the rule of retention")
    oldest_event_at: Instant | None = Field(None, description="when the oldest that is here was recorded")
    open_dead_letters: int = Field(description="parked deliveries and records that were set aside")
    totals: Counts
    conditions: list[Condition]
    lanes: list[LaneRow]
    audits: list[AuditFinding] = Field([], description="what no person acknowledged yet")


class DeliveryState(_Wire):
    """One event at one target, in short."""

    delivery: int
    target: str
    state: str
    reference: str = ""
    letter: int | None = Field(None, description="its open dead letter")
    reason: str = Field("", description="why it was set aside")
    behind: int | None = Field(None, description="the delivery of the same key that has to be settled first")
    behind_letter: int | None = Field(None, description="the open dead letter of that one")


class EventRow(_Wire):
    """One event in a list."""

    seq: int
    id: str
    time: datetime
    recorded_at: Instant
    flow: str
    contract: str
    op: str
    subject: str
    source: str = Field(description="site/system it was read from")
    place: str = ""
    deliveries: list[DeliveryState] = []


class AttemptRow(_Wire):
    """One try that went other than well, with the evidence."""

    number: int
    verdict: str
    ended_at: Instant
    result: str
    code: str
    detail: str
    document: str | None = None


class DeliveryDetail(DeliveryState):
    """One delivery with its history."""

    flow: str
    version: int
    attempts: int
    due_at: Instant | None = None
    idempotency_key: str | None = None
    first_sent_at: Instant | None = None
    last_sent_at: Instant | None = None
    last_denied_at: Instant | None = None
    settled_at: Instant | None = None
    outcome: str | None = None
    detail: str = ""
    tries: list[AttemptRow] = []


class RawBytes(_Wire):
    """Bytes as they arrived. `text` where they are UTF-8, else `base64`; of `size` bytes at most the first 64 KiB."""

    size: int
    text: str | None = None
    base64: str | None = None
    is_cut: bool = False


class RawDocument(_Wire):
    """The document that a record stood in."""

    name: str
    sha256: str
    size: int


class EventDetail(Answer, EventRow):
    """One event with its data and where it went."""

    partition_key: str
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str = ""
    estate_hash: str
    extensions: dict[str, Any] = {}
    document: RawDocument | None = None
    data: Any
    history: list[DeliveryDetail]


class SaidOfDelivery(_Wire):
    """What an outcome says of a delivery, wherever its target is."""

    target: str = Field(description="site/system")
    state: str
    reference: str = Field("", description="the target's own number")
    detail: str = ""


class TraceStep(EventRow):
    """One event that speaks of a key; `is_subject` where the key is what the event is about."""

    is_subject: bool
    history: list[DeliveryDetail] = []
    said: SaidOfDelivery | None = Field(None, description="of an outcome of a delivery at another site, what it says")


class TraceView(Answer):
    """Everything that is known of one business key, oldest first."""

    key: str
    steps: list[TraceStep]


class DeadLetterRow(_Wire):
    """A record or a delivery that was set aside: where, which rule, what it said, what to do."""

    id: int
    kind: str = Field(description="record or delivery")
    state: str = Field(description="open, replayed, superseded or discarded")
    flow: str
    system: str
    subject: str = ""
    place: str
    field: str = ""
    rule: str
    code: str
    shown: str = ""
    message: str
    hint: str
    parked_at: Instant
    closed_at: Instant | None = None
    delivery: int | None = None


class DeadLetterDetail(Answer, DeadLetterRow):
    """One dead letter with its raw bytes."""

    raw: RawBytes
    document: RawDocument | None = None
    event: str | None = None
    waiting_behind: int = Field(0, description="newer deliveries of its key that wait for it")
    tries: list[AttemptRow] = []


class InDoubtRow(_Wire):
    """A delivery of which nobody can say whether it landed. `due_at` None: it waits for a person."""

    delivery: int
    flow: str
    target: str
    subject: str
    event: str
    first_sent_at: Instant | None = None
    last_sent_at: Instant | None = None
    last_denied_at: Instant | None = None
    due_at: Instant | None = None
    attempts: int
    idempotency_key: str | None = None
    detail: str = ""


class InDoubtDetail(Answer, InDoubtRow):
    """One delivery in doubt with the evidence: what was sent, and what each call and each probe came to."""

    payload: RawBytes
    waiting_behind: int
    tries: list[AttemptRow]


class AuditRow(_Wire):
    """Who did what to what, and why."""

    seq: int
    at: Instant
    actor: str
    action: str
    target: str
    reason: str
    before: Any = None
    after: Any = None
    request_id: str = ""
    details: Any = None
    hash: str
    copy_id: int | None = Field(
        None, description="of an entry of another audit or another life: its number among the copies"
    )


class AuditVerdict(Answer):
    """Whether the audit's hash chain is whole. `first_bad` is the entry at which it breaks."""

    ok: bool
    entries: int
    head: str
    first_bad: int | None = None
    reason: str = ""
    audit_of: str = Field(
        "", description="the site whose audit it is, where that is another one's: then copies were looked at"
    )
    fits: list[str] = Field([], description="the sites whose agents know a head of it that fits")


class Health(Answer):
    """Whether the agent works; for a load balancer or a watchdog."""

    ok: bool
    troubles: list[str]


class Reloaded(Answer):
    """The estate that is in force after it was read again."""

    estate_hash: str
    changed: bool


class BackupRow(_Wire):
    """One published backup. What its manifest would say is missing where there is a `problem` with it."""

    name: str
    path: str
    site: str = ""
    epoch: int = 0
    taken_at: Instant | None = None
    events: int | None = None
    last_event: int | None = Field(None, description="it has every event up to this number")
    size: int | None = Field(None, description="bytes, with the raw documents that it shares with others")
    missing_documents: int = Field(0, description="raw documents that the agent's own archive had lost already")
    version: str = ""
    manifest_sha256: str = ""
    problem: str = ""


class BackupMade(Answer):
    """A backup that was verified, published and noted."""

    backup: BackupRow


class GapRow(_Wire):
    """Events that one agent needed of another's stream when that had let them go: those from `first` to `last`."""

    sender: str
    receiver: str
    epoch: int = Field(description="of the sender")
    tier: int
    first: int
    last: int
    since: Instant | None = Field(None, description="when the last one before them was recorded; null: not known")
    until: Instant
    text: str


class SiteBundle(_Wire):
    """Which estate of the hub a site has in force, and which one it refuses, as it told last."""

    number: int | None = None
    estate: str = Field("", description="its hash")
    state: str = Field("", description="trial, or good")
    refused: int | None = Field(None, description="the number of the last one, where that is refused")
    reason: str = ""


class DrainView(_Wire):
    """Whether an agent drains, and what it owes. Drained is who owes nothing: then its machine can be let go."""

    state: str = Field(description="open, draining or drained")
    since: Instant | None = None
    reason: str = ""
    sources: int = Field(0, description="what it reads, or would read if it did not drain")
    deliveries: int = Field(0, description="owed to its own systems, and on their way")
    parked: int = Field(0, description="owed to its own systems, and for a person to decide")
    targets: list[str] = Field([], description="the systems that these are owed to")
    events: int = Field(0, description="that other agents have not acknowledged yet")
    unapplied: int = Field(0, description="events from others that wait for their estate")


class DrainState(Answer):
    """How an agent stands with its draining; of a dry run, as it was found."""

    drain: DrainView


class AgentRow(_Wire):
    """Another agent as this one knows it. `waiting` are events that it does not have yet; `said` is what it told of itself."""

    agent: str = Field(description="its site")
    state: str = Field(description="open, silent, awaited, fenced, adopting, denied or never heard")
    reason: str = ""
    to_do: str = Field("", description="what a person does about it")
    epoch: int = 0
    heard_at: Instant | None = None
    refused_at: Instant | None = Field(None, description="when another store of it came last, whose epoch has ended")
    waiting: int = 0
    done_in: float | None = Field(None, description="seconds until nothing waits, at the rate of the last minute")
    certificate_until: Instant | None = None
    audit_entries: int = Field(0, description="of its audit, as it told last")
    audit_kept: int = Field(0, description="to which entry of it there are copies here; 0: none")
    gaps: list[GapRow] = Field([], description="what is beyond retention, in either direction")
    bundle: SiteBundle | None = Field(None, description="of the hub's estates, at a site that takes them")
    said: dict[str, Any] = {}


class AgentDetail(Answer):
    """One other agent."""

    agent: AgentRow


class Invitation(Answer):
    """What enrols the agent of a site, once."""

    invited: str = Field(description="the site")
    token: str
    expires_at: Instant


class Caller(_Wire):
    """Who the operating system says is asking."""

    pid: int
    uid: int
    gid: int
    user: str
    actor: str = Field("", description="what the audit calls them")
    roles: list[str] = Field([], description="their roles at this site; none in an estate without people")


class TokenRow(_Wire):
    """A token of a person. Its text is kept nowhere."""

    id: int
    name: str
    person: str
    roles: list[str]
    sites: list[str] | None = Field(None, description="where it holds; null is every site")
    state: str = Field(description="valid, expired, revoked, or orphaned: the estate no longer names its person")
    created_at: Instant
    created_by: str
    expires_at: Instant
    last_used_at: Instant | None = Field(None, description="to the minute")
    revoked_at: Instant | None = None
    revoked_by: str = ""
    reason: str = Field("", description="why it was revoked")


class IssuedToken(Answer, TokenRow):
    """A token that was just made: the only answer that has its text."""

    token: str


PROBLEM_TYPE: Final = "application/problem+json"
"""The media type of a `Problem`."""

SITE_HEADER: Final = "distctl-site"
"""Names the site whose agent is meant."""

WITHIN_HEADER: Final = "distctl-within"
"""Says how many seconds the caller waits."""


class Problem(_Wire):
    """An error as RFC 9457 says it, with our exit code and hint."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    exit_code: int
    place: str = ""
