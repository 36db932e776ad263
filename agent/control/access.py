"""The gate of the control API: who asks, and whether they may. The one place where rights are enforced.

A transport says what it knows of a caller (`Credentials`), a route says what it does (`Action`), and the gate answers with the
`Subject` or refuses. It knows nothing of sockets, so whatever carries the API may use it. A token that is shown is what counts:
one that is wrong is never made good by the account it came from.

A refusal is audited once, and the same refusal of the same caller again at most once a minute, with how often it was repeated.
Counts are written by the next call after that minute, or when the gate is closed: a crash loses counts and never an entry. A
refusal that cannot be audited is a refusal all the same.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from state import audit, tokens
from state.database import Database
from state.model.clock import Clock, from_millis, to_millis
from state.model.errors import DeniedError, DistctlError, InvariantError
from state.model.estate import Estate
from state.model.people import ALLOWED, Action, Decision, People, Standing, Subject, Vouched, decide
from state.tokens import Token

REPEATED_WITHIN_SECONDS: Final = 60.0
"""How long refusals that are alike count as one."""

MOST_CALLERS: Final = 1_000
"""Refusals that are told apart at once; what is beyond them counts as one caller's."""

_LOG: Final = logging.getLogger("distctl.control")
_ACTION: Final = "x-distctl-action"
_ONLY_HERE: Final = "x-distctl-only-here"
_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE | re.ASCII)


def needs(action: Action, *, only_here: str = "") -> dict[str, Any]:
    """What a route says of itself: `@app.get("/v1/status", **needs(Action.READ))`. OpenAPI shows it.

    `only_here` is why the agent of another site cannot be asked for it through the hub; empty: it can.
    """
    return {"openapi_extra": {_ACTION: action.value, **({_ONLY_HERE: only_here} if only_here else {})}}


def action_of(route: Any) -> Action:
    """What a route does. Raises `InvariantError` for one that does not say: nobody may call it."""
    action = (getattr(route, "openapi_extra", None) or {}).get(_ACTION)
    if action is None:
        raise InvariantError(f"the route {getattr(route, 'path', route)} does not say what it does", code="no-action")
    return Action(action)


def only_here(route: Any) -> str:
    """Why a route is for callers at its own agent; empty where it is not."""
    return str((getattr(route, "openapi_extra", None) or {}).get(_ONLY_HERE, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a transport knows of a caller: the account or the address they come from, and the header that they sent.

    Of a caller at the hub it knows whom the hub vouches for, and the hub's site.
    """

    user: str
    uid: int | None = None  # of an account of this machine; None for whoever comes from elsewhere
    authorization: str | None = None
    vouched: Vouched | None = None
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that came through the gate. `name` is that of the route, `POST /v1/agent/resume`, without what the caller wrote."""

    subject: Subject
    credentials: Credentials
    action: Action
    site: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the audit keeps of a refusal. `repeated` is how often it came again since the entry before it."""

    actor: str
    uid: int | None
    call: str
    action: Action
    site: str
    code: str
    message: str
    repeated: int = 0


class Register(Protocol):
    """What the gate looks up and writes down. Raises the errors of the store."""

    async def find_token(self, text: str) -> Token | None:
        """The token of that text, whether or not it still holds."""
        ...

    async def note_use(self, token: Token, *, now: int) -> None:
        """Write that it was used."""
        ...

    async def note_refusal(self, refusal: Refusal, *, now: int) -> None:
        """Write it to the audit."""
        ...


class AllowedToHub(Protocol):
    """What this site lets people at the hub do. Raises `DeniedError`."""

    def require_commands(self) -> None:
        """They may have something changed."""
        ...

    def require_payloads(self) -> None:
        """They may read what events and records say."""
        ...


class StoreRegister:
    """The register in the agent's own store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_token(self, text: str) -> Token | None:
        """By its hash."""
        return await self._database.read(partial(tokens.find, text=text))

    async def note_use(self, token: Token, *, now: int) -> None:
        """In the token's row."""
        await self._database.write(partial(tokens.note_use, token=token.id, now=now), name="control.note_use")

    async def note_refusal(self, refusal: Refusal, *, now: int) -> None:
        """As an entry of its own."""
        await self._database.write(partial(_append_refusal, refusal, now), name="control.note_refusal")


class Gate:
    """The gate of one agent."""

    def __init__(
        self,
        register: Register,
        *,
        site: str,
        estate: Callable[[], Estate],
        clock: Clock,
        own_uid: int | None = None,
        allowed_to_hub: Callable[[], AllowedToHub] | None = None,
    ) -> None:
        """`estate` is the one in force now; `own_uid` is the agent's own account, default that of this process.

        `allowed_to_hub` is what the site's own people let the hub do at this moment; None: everything.
        """
        self._register = register
        self._site = site
        self._estate = estate
        self._clock = clock
        self._allowed_to_hub = allowed_to_hub
        self._house = frozenset({0, os.geteuid() if own_uid is None else own_uid})
        self._tally = _Tally()

    @property
    def site(self) -> str:
        """Whose agent's gate it is."""
        return self._site

    async def admit(self, credentials: Credentials, action: Action, name: str, *, at: str | None = None) -> Call:
        """The call, if it may go on. Raises `DeniedError`, audited; `StoreError` where a token cannot be looked up.

        `at` is the site that it concerns, where that is another one: who is root here is nobody there.
        """
        await self._write(self._tally.due(self._clock.monotonic()))
        estate = self._estate()
        people = estate.settings.directory
        site = at or self._site
        subject, decision = self._caller(credentials, people), ALLOWED
        # Health is answered to a wrong token too, and while the store does not answer.
        if credentials.authorization is not None and action is not Action.HEALTH:
            subject, decision = await self._bearer(credentials.authorization, people, shown_by=subject)
        if site != self._site:
            subject = people.behind_another_agent(subject.vouched)
        if decision.is_allowed:
            spec = estate.sites.get(site)
            decision = decide(subject, action, site, forbidden=spec.forbids if spec else ())
        if decision.is_allowed and credentials.vouched is not None:
            decision = self._of_the_site(action)
        call = Call(subject=subject, credentials=credentials, action=action, site=site, name=name)
        await self.uphold(decision, call)
        return call

    async def uphold(self, decision: Decision, call: Call) -> None:
        """Let a decision about a call stand: a refusal is audited and raised as `DeniedError`."""
        if decision.is_allowed:
            return
        refusal = Refusal(
            actor=call.subject.actor,
            uid=call.credentials.uid,
            call=call.name,
            action=call.action,
            site=call.site,
            code=decision.code,
            message=decision.message,
        )
        if self._tally.is_new(refusal, now=self._clock.monotonic()):
            await self._write([refusal])
        raise DeniedError(decision.message, hint=decision.hint, code=decision.code)

    async def close(self) -> None:
        """Write the counts that no later call will write."""
        await self._write(self._tally.rest())

    def _of_the_site(self, action: Action) -> Decision:
        """What the site's own people say of a call from the hub."""
        if self._allowed_to_hub is None or action in {Action.HEALTH, Action.READ}:
            return ALLOWED
        allowed = self._allowed_to_hub()
        try:
            allowed.require_payloads() if action is Action.READ_PAYLOADS else allowed.require_commands()
        except DeniedError as error:
            return _refused(error.code, f"{self._site} refuses: {error.message}", error.hint)
        return ALLOWED

    def _caller(self, credentials: Credentials, people: People) -> Subject:
        if credentials.vouched is not None:
            return people.behind_another_agent(credentials.vouched, via=credentials.via)
        if credentials.uid is None:
            return Subject(name=credentials.user, standing=Standing.STRANGER)
        is_house = credentials.uid in self._house
        return people.behind_account(site=self._site, uid=credentials.uid, user=credentials.user, is_house=is_house)

    async def _bearer(self, header: str, people: People, *, shown_by: Subject) -> tuple[Subject, Decision]:
        """Whoever the token is for, and whether it still holds. A token that is nobody's is laid to who showed it."""
        match = _BEARER.fullmatch(header)
        if match is None or not tokens.is_token(match[1]):
            hint = "it was cut off, or is of something else: a token is `distctl_` and 43 characters"
            return shown_by, _refused("token-garbled", "what was shown is no token", hint)
        token = await self._register.find_token(match[1])
        if token is None:
            hint = "a token holds at the agent that made it, and is shown only once: have one made there"
            return shown_by, _refused("token-unknown", f"the agent of {self._site} knows no such token", hint)
        now = to_millis(self._clock.now())
        subject = people.behind_token(token.person, token.scope)
        if subject is None:
            nobody = Subject(name=token.person, standing=Standing.STRANGER, scope=token.scope)
            message = f"the token {token.name} is of {token.person}, whom the estate no longer names"
            return nobody, _refused("token-orphaned", message, "have one made for somebody it names")
        if ended := _end_of(token, now):
            return subject, ended
        if token.is_use_worth_noting(now):
            await self._note_use(token, now)
        return subject, ALLOWED

    async def _note_use(self, token: Token, now: int) -> None:
        try:
            await self._register.note_use(token, now=now)
        except DistctlError as error:
            _LOG.warning("the use of the token %s could not be noted: %s", token.name, error)

    async def _write(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            _LOG.warning("refused: %s (%s)", refusal.message, refusal.call, extra={"code": refusal.code})
            try:
                await self._register.note_refusal(refusal, now=to_millis(self._clock.now()))
            except DistctlError as error:
                _LOG.error("a refusal is not in the audit: %s", error)


_Kind: TypeAlias = tuple[str, int | None, Action, str, str]


class _Tally:
    """Which refusals were written, until when they count as said, and how often they came again."""

    def __init__(self) -> None:
        self._said: dict[_Kind, tuple[float, Refusal]] = {}  # until when; with how often it was repeated

    def is_new(self, refusal: Refusal, *, now: float) -> bool:
        """Whether it is to be written now. Otherwise it is counted."""
        kind: _Kind = (refusal.actor, refusal.uid, refusal.action, refusal.site, refusal.code)
        if kind not in self._said and len(self._said) >= MOST_CALLERS:
            kind = ("others", None, refusal.action, "", refusal.code)
        if kind not in self._said:
            self._said[kind] = (now + REPEATED_WITHIN_SECONDS, refusal)
            return True
        until, said = self._said[kind]
        self._said[kind] = (until, replace(said, repeated=said.repeated + 1))
        return False

    def due(self, now: float) -> Sequence[Refusal]:
        """Those whose minute is over and that came again. They count as said for another minute."""
        over = [(kind, said) for kind, (until, said) in self._said.items() if until <= now]
        for kind, said in over:
            if said.repeated:
                self._said[kind] = (now + REPEATED_WITHIN_SECONDS, replace(said, repeated=0))
            else:
                del self._said[kind]
        return [said for _, said in over if said.repeated]

    def rest(self) -> Sequence[Refusal]:
        """All that came again and was not written."""
        left = [said for _, said in self._said.values() if said.repeated]
        self._said.clear()
        return left


def _end_of(token: Token, now: int) -> Decision | None:
    """Why the token holds no more."""
    hint = "have another one made: `distctl token create NAME --role ROLE --expires 90d`"
    if token.revoked_at is not None:
        return _refused("token-revoked", f"the token {token.name} was revoked at {_moment(token.revoked_at)}", hint)
    if token.expires_at <= now:
        return _refused("token-expired", f"the token {token.name} held until {_moment(token.expires_at)}", hint)
    return None


def _refused(code: str, message: str, hint: str) -> Decision:
    return Decision(is_allowed=False, code=code, message=message, hint=hint)


def _moment(millis: int) -> str:
    return f"{from_millis(millis):%Y-%m-%d %H:%M:%SZ}"


def _append_refusal(refusal: Refusal, now: int, connection: sqlite3.Connection) -> None:
    details = {"action": refusal.action, "site": refusal.site, "code": refusal.code, "repeated": refusal.repeated}
    audit.append(
        connection,
        at_ms=now,
        actor=refusal.actor,
        action="refuse",
        target=refusal.call,
        reason=refusal.message,
        details=details if refusal.uid is None else {**details, "uid": refusal.uid},
    )
