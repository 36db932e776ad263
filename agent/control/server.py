"""The control API: FastAPI over a `Desk`, on a Unix socket, with every caller known by the operating system or a token.

Each route says what it does (`needs`), and before it runs the gate decides whether its caller may. What a call carries is its
path and its query, which are bounded: no body is read, so none is read of somebody who may do nothing. A call that names another
site is passed on by the hub (`agent.control.afar`), and comes in at that site's agent through these same routes.

Concurrency: requests run as tasks of the agent's loop; the desk's reads run on the store's reader threads. The server touches no
signals: the runtime owns them. Crash: the socket file may stay behind and is replaced at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from agent.control.access import Call, Credentials, Gate, action_of, needs
from agent.control.afar import answer_in_process, is_for, pass_on, require_from_afar
from agent.control.desk import Desk, Slice
from agent.control.endpoint import listen
from agent.control.peer import IdentifyingProtocol
from agent.control.schema import (
    PROBLEM_TYPE,
    SITE_HEADER,
    AgentDetail,
    AgentRow,
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
from agent.errand import Answered, Elsewhere, Question
from agent.serving import QuietServer
from state.model.errors import ConfigError, DistctlError
from state.model.estate import Duration
from state.model.people import Action, Role, TokenWish, may_issue
from state.model.visible import visible

_LOG: Final = logging.getLogger("distctl.control")
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATUS_OF_EXIT_CODE: Final = {2: 400, 3: 404, 4: 403, 6: 409, 7: 503}
_GRACE_SECONDS: Final = 2
_BACKLOG: Final = 128  # callers that queue; asyncio accepts as many at once, each with a descriptor

_Filter = Annotated[str | None, Query(max_length=500)]
_Reason = Annotated[str, Query(min_length=1, max_length=500)]


def make_app(desk: Desk, gate: Gate, elsewhere: Elsewhere | None = None) -> FastAPI:
    """The API over `desk`, behind `gate`. Every error is a `Problem`; OpenAPI is at /openapi.json.

    `elsewhere` are the other sites, where this agent can ask them.
    """

    async def admit(request: Request) -> None:
        """Before every route: by default nobody may."""
        route = request.scope["route"]
        credentials = _credentials(request)
        request.state.call = await gate.admit(credentials, action_of(route), f"{request.method} {route.path}")
        if credentials.vouched is not None:
            require_from_afar(route)

    class Route(APIRoute):
        """Answers a call that concerns this site, and has the others passed on."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer_here = super().get_route_handler()

            async def answer(request: Request) -> Response:
                site = is_for(request, gate.site)
                if site is None:
                    return await answer_here(request)
                if elsewhere is None:
                    raise _other_site(gate.site, site)
                credentials = _credentials(request)
                return await pass_on(request, self, site, gate=gate, elsewhere=elsewhere, credentials=credentials)

            return answer

    app = FastAPI(
        title="distctl control API",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(admit)],
    )
    app.router.route_class = Route
    app.middleware("http")(_log_changes)
    _answer_with_problems(app)
    _add_screens(app, desk)
    _add_lists(app, desk)
    _add_details(app, desk)
    _add_monitoring(app, desk)
    _add_changes(app, desk)
    _add_agents(app, desk)
    _add_tokens(app, desk, gate)
    return app


class ControlServer:
    """The API of one agent on its socket, from the moment it is made until `serve` returns."""

    def __init__(self, desk: Desk, path: Path, gate: Gate, elsewhere: Elsewhere | None = None) -> None:
        """Take the socket at `path`: callers queue from now on. Raises `ConflictError`, `ConfigError`."""
        self._path = path
        self._listener: socket.socket | None = listen(path)
        self._gate = gate
        self._app = make_app(desk, gate, elsewhere)

    async def answer(self, question: Question, *, hub: str) -> Answered:
        """What the API answers to somebody at the hub. Never raises but when it is cancelled."""
        return await answer_in_process(self._app, question, hub=hub)

    async def serve(self, stop: asyncio.Event) -> None:
        """Answer until `stop` is set; requests under way get two seconds to end. May be run again after a failure."""
        listener = self._listener = self._listener or listen(self._path)
        try:
            await QuietServer(_config(self._app), stop).serve(sockets=[listener])
            await self._gate.close()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the socket."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with suppress(FileNotFoundError):
                self._path.unlink()


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=IdentifyingProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


async def _log_changes(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Questions are silent; whoever asks for a change is named."""
    response = await call_next(request)
    level = logging.DEBUG if request.method in {"GET", "HEAD"} else logging.INFO
    caller = _caller(request)
    admitted: Call | None = getattr(request.state, "call", None)  # None: refused, or there is no such call
    _LOG.log(
        level,
        "%s %s by %s: %d",
        request.method,
        f"{request.url.path} at {visible(site)}" if (site := request.headers.get(SITE_HEADER)) else request.url.path,
        admitted.subject.actor if admitted else caller.user,
        response.status_code,
        extra={"uid": caller.uid, "pid": caller.pid},
    )
    return response


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _credentials(request: Request) -> Credentials:
    vouched: Credentials | None = getattr(request.state, "credentials", None)
    if vouched is not None:
        return vouched
    caller = _caller(request)
    shown = request.headers.getlist("authorization")  # two are as good as none that can be read
    return Credentials(user=caller.user, uid=caller.uid, authorization=", ".join(shown) if shown else None)


def _call(request: Request) -> Call:
    call: Call = request.state.call
    return call


def _actor(request: Request) -> str:
    return _call(request).subject.actor


_Admitted = Annotated[Call, Depends(_call)]
_Actor = Annotated[str, Depends(_actor)]


def _part(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: Annotated[str | None, Query(max_length=100)] = None
) -> Slice:
    return Slice(limit=limit, cursor=cursor)


_Part = Annotated[Slice, Depends(_part)]


def _add_screens(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/status", **needs(Action.READ))
    async def status() -> Status:
        return await desk.status()

    @app.get("/v1/flows", **needs(Action.READ))
    async def flows() -> Page[FlowRow]:
        return await desk.flows()

    @app.get("/v1/lanes", **needs(Action.READ))
    async def lanes() -> Page[LaneRow]:
        return await desk.lanes()

    @app.get("/v1/trace", **needs(Action.READ))
    async def trace(key: Annotated[str, Query(min_length=1, max_length=500)]) -> TraceView:
        return await desk.trace(key)


def _add_lists(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/events", **needs(Action.READ))
    async def events(part: _Part, flow: _Filter = None, key: _Filter = None) -> Page[EventRow]:
        return await desk.events(part, flow=flow, key=key)

    @app.get("/v1/dead-letters", **needs(Action.READ))
    async def dead_letters(
        part: _Part, flow: _Filter = None, code: _Filter = None, closed: bool = False
    ) -> Page[DeadLetterRow]:
        return await desk.dead_letters(part, flow=flow, code=code, closed=closed)

    @app.get("/v1/in-doubt", **needs(Action.READ))
    async def in_doubt(part: _Part, flow: _Filter = None) -> Page[InDoubtRow]:
        return await desk.in_doubt(part, flow=flow)

    @app.get("/v1/audit", **needs(Action.READ))
    async def audit(
        part: _Part, actor: _Filter = None, target: _Filter = None, of: _Filter = None, lost: bool = False
    ) -> Page[AuditRow]:
        return await desk.audit(part, actor=actor, target=target, of=of, lost=lost)


def _add_details(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/events/{event:path}", **needs(Action.READ_PAYLOADS))
    async def event(event: str) -> EventDetail:
        return await desk.event(event)

    @app.get("/v1/dead-letters/{number}", **needs(Action.READ_PAYLOADS))
    async def dead_letter(number: int) -> DeadLetterDetail:
        return await desk.dead_letter(number)

    @app.get("/v1/in-doubt/{delivery}", **needs(Action.READ_PAYLOADS))
    async def in_doubt_delivery(delivery: int) -> InDoubtDetail:
        return await desk.in_doubt_delivery(delivery)

    @app.get("/v1/audit/verdict", **needs(Action.READ))
    async def audit_verdict(of: _Filter = None) -> AuditVerdict:
        return await desk.audit_verdict(of=of)


def _add_monitoring(app: FastAPI, desk: Desk) -> None:
    @app.get("/health", **needs(Action.HEALTH))
    async def health(response: Response) -> Health:
        answer = await desk.health()
        response.status_code = 200 if answer.ok else 503
        return answer

    @app.get("/metrics", **needs(Action.READ))
    async def metrics() -> Response:
        return Response(await desk.metrics(), media_type=_METRICS_TYPE)

    @app.get("/v1/caller", **needs(Action.READ))
    async def whoami(caller: Annotated[Caller, Depends(_caller)], call: _Admitted) -> Caller:
        roles = sorted(call.subject.roles_at(call.site))
        return caller.model_copy(update={"actor": call.subject.actor, "roles": roles})

    @app.get("/openapi.json", include_in_schema=False, **needs(Action.READ))
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())


def _add_changes(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/estate/reload", **needs(Action.ENGINEER))
    async def reload(actor: _Actor) -> Reloaded:
        return await desk.reload(caller=actor)

    @app.post("/v1/agent/resume", status_code=204, **needs(Action.OPERATE, only_here="safe mode has no link"))
    async def resume(actor: _Actor, reason: _Reason, dry_run: bool = False) -> None:
        await desk.resume(caller=actor, reason=reason, dry_run=dry_run)

    @app.get("/v1/agent/drain", **needs(Action.READ))
    async def drain() -> DrainState:
        return await desk.drain()

    @app.post("/v1/agent/drain", **needs(Action.OPERATE))
    async def begin_drain(actor: _Actor, reason: _Reason, dry_run: bool = False) -> DrainState:
        return await desk.begin_drain(caller=actor, reason=reason, dry_run=dry_run)

    @app.post("/v1/agent/undrain", **needs(Action.OPERATE))
    async def end_drain(actor: _Actor, reason: _Reason, dry_run: bool = False) -> DrainState:
        return await desk.end_drain(caller=actor, reason=reason, dry_run=dry_run)

    @app.post("/v1/audit/{site}/acknowledge", status_code=204, **needs(Action.ADMINISTER))
    async def acknowledge_audit(site: str, actor: _Actor, reason: _Reason) -> None:
        await desk.acknowledge_audit(site, caller=actor, reason=reason)

    @app.post("/v1/backups", **needs(Action.ADMINISTER, only_here="it names a folder of the machine"))
    async def back_up(actor: _Actor, folder: Annotated[str, Query(min_length=1, max_length=4096)]) -> BackupMade:
        return await desk.back_up(caller=actor, folder=folder)


def _add_agents(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/agents", **needs(Action.READ))
    async def agents() -> Page[AgentRow]:
        return await desk.agents()

    @app.get("/v1/agents/{site}", **needs(Action.READ))
    async def agent(site: str) -> AgentDetail:
        return await desk.agent(site)

    @app.post("/v1/agents/{site}/invite", **needs(Action.ADMINISTER))
    async def invite(site: str, actor: _Actor) -> Invitation:
        return await desk.invite_agent(site, caller=actor)

    @app.post("/v1/agents/{site}/adopt", **needs(Action.ADMINISTER))
    async def adopt(site: str, actor: _Actor, reason: _Reason) -> AgentDetail:
        return await desk.adopt_agent(site, caller=actor, reason=reason)

    @app.post("/v1/agents/{site}/waive", **needs(Action.ADMINISTER))
    async def waive(site: str, actor: _Actor, reason: _Reason) -> AgentDetail:
        return await desk.waive_agent(site, caller=actor, reason=reason)

    @app.post("/v1/agents/{site}/deny", **needs(Action.ADMINISTER))
    async def deny(site: str, actor: _Actor, reason: _Reason) -> AgentDetail:
        return await desk.deny_agent(site, caller=actor, reason=reason)

    @app.post("/v1/agents/{site}/allow", **needs(Action.ADMINISTER))
    async def allow(site: str, actor: _Actor, reason: _Reason) -> AgentDetail:
        return await desk.allow_agent(site, caller=actor, reason=reason)


def _add_tokens(app: FastAPI, desk: Desk, gate: Gate) -> None:
    @app.get("/v1/tokens", **needs(Action.ADMINISTER))
    async def tokens(part: _Part, revoked: bool = False) -> Page[TokenRow]:
        return await desk.tokens(part, revoked=revoked)

    @app.post("/v1/tokens", **needs(Action.ADMINISTER, only_here="a token's text is for whoever stands there"))
    async def create_token(
        call: _Admitted,
        name: Annotated[str, Query(max_length=100)],
        role: Annotated[list[Role], Query(min_length=1, max_length=len(Role))],
        expires: Annotated[Duration, Query()],
        person: Annotated[str | None, Query(max_length=100, description="default: whoever makes it")] = None,
        site: Annotated[list[str] | None, Query(max_length=500)] = None,
        everywhere: bool = False,
    ) -> IssuedToken:
        person = person or _own_id(call)
        await gate.uphold(may_issue(call.subject, role, person), call)
        sites = None if everywhere else frozenset(site or [call.site])
        wish = TokenWish(name=name, person=person, roles=frozenset(role), sites=sites, lasts=expires)
        return await desk.create_token(wish, caller=call.subject.actor)

    @app.post("/v1/tokens/{name}/revoke", status_code=204, **needs(Action.ADMINISTER))
    async def revoke_token(name: str, actor: _Actor, reason: _Reason) -> None:
        await desk.revoke_token(name, caller=actor, reason=reason)


def _own_id(call: Call) -> str:
    """The person who asks. Raises `ConfigError` where the estate names none."""
    if call.subject.person is None:
        raise ConfigError(
            f"{call.subject.name} is no person of the estate, so the token is to be somebody's",
            hint="name whose it is: `--person`",
            code="no-person",
        )
    return call.subject.person.id


def _answer_with_problems(app: FastAPI) -> None:
    @app.exception_handler(DistctlError)
    async def known(_: Request, error: DistctlError) -> JSONResponse:
        return _problem(_from_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:] or found["loc"])  # the first says only: query or path
        rule = found["msg"].replace("String should", "it must").replace("Input should", "it must")
        rule = rule.removeprefix("Value error, ")
        return _problem(
            Problem(
                title="invalid request",
                status=422,
                detail=rule,
                code="invalid-request",
                hint="the API is described at /openapi.json",
                exit_code=2,
                place=place,
            )
        )

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        exit_code = 3 if error.status_code == 404 else 2
        hint = "this agent may be older than the program that asks; the API is described at /openapi.json"
        text = str(error.detail)
        return _problem(
            Problem(
                title=text, status=error.status_code, detail=text, code="no-such-call", hint=hint, exit_code=exit_code
            )
        )

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        detail = f"the agent failed while it answered ({type(error).__name__})"
        hint = "the agent's log has the details"
        return _problem(
            Problem(title="internal error", status=500, detail=detail, code="internal", hint=hint, exit_code=1)
        )


def _other_site(here: str, wanted: str) -> ConfigError:
    hint = f"name the --data folder or the --socket of {wanted}, ask the hub, or leave out --site (and DISTCTL_SITE)"
    return ConfigError(f"this agent is that of site {here}, not of {wanted}", hint=hint, code="other-site")


def _from_error(error: DistctlError) -> Problem:
    return Problem(
        type=f"urn:distctl:problem:{error.code}",
        title=error.code,
        status=_STATUS_OF_EXIT_CODE.get(error.exit_code, 500),
        detail=error.message,
        code=error.code,
        hint=error.hint,
        exit_code=error.exit_code,
        place=error.place if isinstance(error, ConfigError) else "",
    )


def _problem(problem: Problem) -> JSONResponse:
    content: dict[str, Any] = problem.model_dump(mode="json")
    return JSONResponse(content, status_code=problem.status, media_type=PROBLEM_TYPE)
