"""The client of the control API: one method a question, over the agent's Unix socket.

It speaks HTTP with the standard library: httpx alone takes longer to import than a whole `distctl status` may take
(docs/performance.md, P11). One connection a call, so a client may be shared by threads; each call has one deadline for all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, IncompleteRead
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from agent.control.desk import BACKUP_SECONDS, VERIFY_SECONDS
from agent.control.endpoint import connect
from agent.control.schema import (
    PROBLEM_TYPE,
    SITE_HEADER,
    WITHIN_HEADER,
    AgentDetail,
    AgentRow,
    Answer,
    AuditRow,
    AuditVerdict,
    BackupMade,
    Caller,
    DeadLetterDetail,
    DeadLetterRow,
    DrainState,
    EventDetail,
    EventRow,
    FlowRow,
    Health,
    InDoubtDetail,
    InDoubtRow,
    Invitation,
    IssuedToken,
    LaneRow,
    Page,
    Problem,
    Reloaded,
    Status,
    TokenRow,
    TraceView,
)
from state.model.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    DistctlError,
    InDoubtError,
    NotConnectedError,
    NotFoundError,
    StoreError,
)

Model = TypeVar("Model", bound=BaseModel)
Row = TypeVar("Row", bound=BaseModel)

_DEADLINE_SECONDS: Final = 10.0
_TO_SAY_SO: Final = 2.0
_LARGEST_PAGE: Final = 1000
_LARGEST_ANSWER: Final = 64 * 1024 * 1024
_ERROR_OF_EXIT_CODE: Final[dict[int, type[DistctlError]]] = {
    2: ConfigError,
    3: NotFoundError,
    4: DeniedError,
    6: ConflictError,
    7: StoreError,
    10: InDoubtError,
}


class ControlClient:
    """Asks the agent behind the socket at `path`, or through it that of `site`, where it is the hub of that site.

    With a `token` it asks as whom that was made for, else as the account it runs under. Every method raises `NotConnectedError`
    where no agent answers, `ConfigError` where another site's does, and otherwise what the agent raised: `NotFoundError`,
    `DeniedError`, `ConflictError`, `StoreError`, `ConfigError`, `InDoubtError`.
    """

    def __init__(
        self, path: Path, *, site: str | None = None, token: str | None = None, deadline: float = _DEADLINE_SECONDS
    ) -> None:
        """`deadline` in seconds is for a whole call, from connect to the last byte. Raises `DeniedError` for no token."""
        self.path = path
        self._site = site
        self._deadline = deadline
        self._headers = {
            "Connection": "close",
            **({} if token is None else {"Authorization": _bearer(token)}),
            **({SITE_HEADER: _one_line(site)} if site else {}),
        }

    def status(self) -> Status:
        """The agent in one answer."""
        return self._get(Status, "/v1/status")

    def flows(self) -> Page[FlowRow]:
        """Every flow."""
        return self._get(Page[FlowRow], "/v1/flows")

    def lanes(self) -> Page[LaneRow]:
        """Every lane."""
        return self._get(Page[LaneRow], "/v1/lanes")

    def events(
        self, *, flow: str | None = None, key: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[EventRow]:
        """Events, newest first."""
        return self._get(Page[EventRow], "/v1/events", flow=flow, key=key, limit=limit, cursor=cursor)

    def event(self, event: str) -> EventDetail:
        """One event by its id."""
        return self._get(EventDetail, f"/v1/events/{quote(event, safe='', errors='replace')}")

    def trace(self, key: str) -> TraceView:
        """Everything known of a business key."""
        return self._get(TraceView, "/v1/trace", key=key)

    def dead_letters(
        self,
        *,
        flow: str | None = None,
        code: str | None = None,
        closed: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[DeadLetterRow]:
        """Dead letters, newest first."""
        path = "/v1/dead-letters"
        return self._get(
            Page[DeadLetterRow], path, flow=flow, code=code, closed=closed or None, limit=limit, cursor=cursor
        )

    def dead_letter(self, number: int) -> DeadLetterDetail:
        """One dead letter with its raw bytes."""
        return self._get(DeadLetterDetail, f"/v1/dead-letters/{number}")

    def in_doubt(self, *, flow: str | None = None, limit: int = 100, cursor: str | None = None) -> Page[InDoubtRow]:
        """Deliveries in doubt, newest first."""
        return self._get(Page[InDoubtRow], "/v1/in-doubt", flow=flow, limit=limit, cursor=cursor)

    def in_doubt_delivery(self, delivery: int) -> InDoubtDetail:
        """One delivery in doubt with its evidence."""
        return self._get(InDoubtDetail, f"/v1/in-doubt/{delivery}")

    def audit(
        self,
        *,
        actor: str | None = None,
        target: str | None = None,
        of: str | None = None,
        lost: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[AuditRow]:
        """Audit entries, newest first: the agent's own, or copies of those `of` a site; `lost` ones are in no store but there.

        Raises `NotFoundError` where nothing is kept of that site's.
        """
        wanted = {"actor": actor, "target": target, "of": of, "lost": "true" if lost else None}
        return self._get(Page[AuditRow], "/v1/audit", **wanted, limit=limit, cursor=cursor)

    def audit_verdict(self, *, of: str | None = None) -> AuditVerdict:
        """Whether the audit's chain is whole, or the copies `of` a site's; waits as long as the agent may take to read it."""
        target = f"/v1/audit/verdict?{urlencode({'of': of}, errors='replace')}" if of else "/v1/audit/verdict"
        return self._parse(AuditVerdict, self._answer("GET", target, deadline=VERIFY_SECONDS + self._deadline))

    def acknowledge_audit(self, site: str, *, reason: str) -> None:
        """Say that somebody knows of what does not fit in the audit of that site. Raises `NotFoundError` where nothing is."""
        self._change(f"/v1/audit/{_part(site)}/acknowledge", {"reason": reason})

    def health(self) -> Health:
        """Whether the agent works; an answer of "no" is an answer."""
        status, body, is_problem = self._exchange("GET", "/health")
        if status not in {200, 503} or is_problem:
            raise self._error(status, body)
        return self._parse(Health, body)

    def caller(self) -> Caller:
        """Who the agent takes us for."""
        return self._get(Caller, "/v1/caller")

    def metrics(self) -> str:
        """What Prometheus scrapes."""
        return self._answer("GET", "/metrics").decode()

    def reload(self) -> Reloaded:
        """Have the agent read its estate folder again now. Raises `InDoubtError` where it was asked and gave no answer."""
        return self._parse(Reloaded, self._change("/v1/estate/reload"))

    def resume(self, *, reason: str, dry_run: bool = False) -> None:
        """End the agent's safe mode; a dry run says only whether it could be.

        Raises `ConflictError` where it is not in it, `ConfigError` where its estate is wrong, `InDoubtError` as `reload`.
        """
        self._change("/v1/agent/resume", _decision(reason, dry_run))

    def drain(self) -> DrainState:
        """Whether the agent drains, and what it owes."""
        return self._get(DrainState, "/v1/agent/drain")

    def begin_drain(self, *, reason: str, dry_run: bool = False) -> DrainState:
        """Have it take in nothing more. Raises `ConflictError` where it drains already, `InDoubtError` as `reload`."""
        return self._parse(DrainState, self._change("/v1/agent/drain", _decision(reason, dry_run)))

    def end_drain(self, *, reason: str, dry_run: bool = False) -> DrainState:
        """Have it take in again. Raises `ConflictError` where it does not drain, `InDoubtError` as `reload`."""
        return self._parse(DrainState, self._change("/v1/agent/undrain", _decision(reason, dry_run)))

    def back_up(self, folder: Path) -> BackupMade:
        """Publish a verified backup in `folder`; waits as long as the agent may take. Raises `InDoubtError` as `reload`."""
        body = self._change("/v1/backups", {"folder": str(folder)}, deadline=BACKUP_SECONDS + self._deadline)
        return self._parse(BackupMade, body)

    def agents(self) -> Page[AgentRow]:
        """The other agents: all of them at the hub, the hub at a site."""
        return self._get(Page[AgentRow], "/v1/agents")

    def agent(self, site: str) -> AgentDetail:
        """One of them. Raises `NotFoundError`."""
        return self._get(AgentDetail, f"/v1/agents/{_part(site)}")

    def invite_agent(self, site: str) -> Invitation:
        """A token that enrols the agent of that site, once and soon. Raises `ConflictError` where this agent is no hub."""
        return self._parse(Invitation, self._change(f"/v1/agents/{_part(site)}/invite"))

    def adopt_agent(self, site: str, *, reason: str) -> AgentDetail:
        """Let a fenced site go on in a new epoch. Raises `ConflictError` where it is not fenced, `InDoubtError` as `reload`."""
        return self._parse(AgentDetail, self._change(f"/v1/agents/{_part(site)}/adopt", {"reason": reason}))

    def waive_agent(self, site: str, *, reason: str) -> AgentDetail:
        """Go on without what the agent of that site may have of this store's life before."""
        return self._parse(AgentDetail, self._change(f"/v1/agents/{_part(site)}/waive", {"reason": reason}))

    def deny_agent(self, site: str, *, reason: str) -> AgentDetail:
        """Keep the agents that the site has had until now out, at once."""
        return self._parse(AgentDetail, self._change(f"/v1/agents/{_part(site)}/deny", {"reason": reason}))

    def allow_agent(self, site: str, *, reason: str) -> AgentDetail:
        """End a denial."""
        return self._parse(AgentDetail, self._change(f"/v1/agents/{_part(site)}/allow", {"reason": reason}))

    def tokens(self, *, revoked: bool = False, limit: int = 100, cursor: str | None = None) -> Page[TokenRow]:
        """Tokens, newest first; with `revoked` those too that were revoked."""
        return self._get(Page[TokenRow], "/v1/tokens", revoked=revoked or None, limit=limit, cursor=cursor)

    def create_token(
        self,
        name: str,
        *,
        roles: Sequence[str],
        expires: str,
        person: str | None = None,
        sites: Sequence[str] = (),
        everywhere: bool = False,
    ) -> IssuedToken:
        """Make a token; the answer alone has its text. Without `sites` it holds at the agent's own, or `everywhere`.

        Without `person` it is of whoever asks. `expires` is a duration such as `90d`. Raises `ConflictError` where the name is
        taken, `ConfigError` where it would be more than its person, `InDoubtError` as `reload`: a token whose text nobody saw is
        to be revoked.
        """
        wish: dict[str, str | Sequence[str]] = {
            "name": name,
            **({"person": person} if person else {}),
            "role": roles,
            "expires": expires,
            "site": sites,
            "everywhere": str(everywhere).lower(),
        }
        return self._parse(IssuedToken, self._change("/v1/tokens", wish))

    def revoke_token(self, name: str, *, reason: str) -> None:
        """End a token now. Raises `NotFoundError`, and `InDoubtError` as `reload`."""
        self._change(f"/v1/tokens/{_part(name)}/revoke", {"reason": reason})

    def _change(
        self, path: str, query: Mapping[str, str | Sequence[str]] | None = None, *, deadline: float | None = None
    ) -> bytes:
        if self._site:
            self.health()  # before anything changes: is it the agent that is meant?
        target = f"{path}?{urlencode(query, doseq=True, errors='replace')}" if query else path
        return self._answer("POST", target, deadline=deadline)

    def _get(self, model: type[Model], path: str, **query: str | int | None) -> Model:
        given = {name: value for name, value in query.items() if value is not None}
        return self._parse(
            model, self._answer("GET", f"{path}?{urlencode(given, errors='replace')}" if given else path)
        )

    def _answer(self, method: str, target: str, *, deadline: float | None = None) -> bytes:
        status, body, _ = self._exchange(method, target, deadline=deadline)
        if status >= 400:
            raise self._error(status, body)
        return body

    def _exchange(self, method: str, target: str, *, deadline: float | None = None) -> tuple[int, bytes, bool]:
        """The status, the body, and whether the body is a `Problem`."""
        connection = HTTPConnection("distctl")
        may_have_changed = False
        seconds = self._deadline if deadline is None else deadline
        headers = {**self._headers, WITHIN_HEADER: f"{seconds:.3f}"} if self._site else self._headers
        try:
            # A hub that waits for the site in vain has still to say so.
            connection.sock = connect(self.path, timeout=seconds + _TO_SAY_SO if self._site else seconds)
            may_have_changed = method != "GET"
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            body = response.read(_LARGEST_ANSWER)
            if response.length:  # the agent ended in the middle, or says more than any agent has to say
                raise IncompleteRead(body)
            return response.status, body, response.headers.get_content_type() == PROBLEM_TYPE
        except (OSError, HTTPException) as error:
            raise (_in_doubt if may_have_changed else _not_connected)(self.path, error) from error
        finally:
            connection.close()

    def _parse(self, model: type[Model], body: bytes) -> Model:
        try:
            answer = model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise DistctlError(
                f"the agent's answer is not what this distctl understands: {place}: {first['msg']}",
                hint="install the same version of distctl as the agent's: compare `distctl --version` with the agent's log",
                code="version-mismatch",
            ) from None
        if self._site and isinstance(answer, Answer) and answer.site != self._site:
            raise _other_site(self.path, self._site, answer.site)
        return answer

    def _error(self, status: int, body: bytes) -> DistctlError:
        try:
            problem = Problem.model_validate(json.loads(body))
        except ValueError:
            hint = f"is {self.path} the socket of a distctl agent?"
            return DistctlError(f"the agent answered {status} without saying why", hint=hint, code="bad-answer")
        kind = _ERROR_OF_EXIT_CODE.get(problem.exit_code, DistctlError)
        told = f"{problem.place}: {problem.detail}" if problem.place else problem.detail
        return kind(told, hint=problem.hint, code=problem.code)


def gather(fetch: Callable[[int, str | None], Page[Row]], *, limit: int) -> Iterator[Page[Row]]:
    """Pages of `fetch(size, cursor)` until there are none or they hold `limit` rows."""
    cursor: str | None = None
    while limit > 0:
        page = fetch(min(limit, _LARGEST_PAGE), cursor)
        yield page
        limit -= len(page.items)
        cursor = page.next
        if cursor is None:
            return


def _bearer(token: str) -> str:
    """The header's text. A header takes no line ends, and a token has none: better refused here than sent in part."""
    if not token.isascii() or not token.isprintable() or not token.strip():
        hint = "it was cut off, or is of something else: a token is `distctl_` and 43 characters"
        raise DeniedError("what was given is no token", hint=hint, code="token-garbled")
    return f"Bearer {token}"


def _one_line(site: str) -> str:
    """A site as a header takes it; what is no name of a site is none that any agent has."""
    return site if site.isascii() and site.isprintable() else "?"


def _other_site(path: Path, wanted: str, found: str) -> ConfigError:
    hint = f"name the --data folder or the --socket of {wanted}, or leave out --site (and DISTCTL_SITE)"
    return ConfigError(f"the agent at {path} is that of site {found}, not of {wanted}", hint=hint, code="other-site")


def _not_connected(path: Path, error: Exception) -> NotConnectedError:
    if isinstance(error, PermissionError):
        hint = "ask to be made a member of the folder's group, or use the agent's account"
        return NotConnectedError(f"this account may not use the socket {path}", hint=hint, code="socket-denied")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        hint = "Is the agent running? Start it with `distctl agent run`, or name its --data folder or --socket"
        return NotConnectedError(f"no agent answers at {path}", hint=hint, code="no-agent")
    return NotConnectedError(_silence(path, error), hint="look at its log", code="agent-silent")


def _in_doubt(path: Path, error: Exception) -> InDoubtError:
    hint = "it may have done what it was asked to: look at `distctl audit list` and its log before asking again"
    return InDoubtError(_silence(path, error), hint=hint, code="agent-silent")


def _silence(path: Path, error: Exception) -> str:
    reason = "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return f"the agent at {path} did not answer: {reason}"


def _decision(reason: str, dry_run: bool) -> dict[str, str]:
    return {"reason": reason, **({"dry_run": "true"} if dry_run else {})}


def _part(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="", errors="replace")
