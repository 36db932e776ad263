"""Calls of the control API that concern another site: sent there by the hub, and answered there by the same routes.

At the hub a call names the site in a header and is passed on untouched, once the gate has decided about it for that site. At the
site it comes in by `answer_in_process`, as whom the hub vouches for; the gate there decides again.
"""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.control.access import Credentials, Gate, action_of, only_here
from agent.control.schema import PROBLEM_TYPE, SITE_HEADER, WITHIN_HEADER, Caller, Problem
from agent.errand import LARGEST_BODY, USUAL_SECONDS, Answered, Elsewhere, Question
from state.model.errors import ConfigError
from state.model.visible import visible

LONGEST_SECONDS: Final = 24 * 3600.0

_WITHOUT_BODY: Final = frozenset({204, 304})
_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)


def is_for(request: Request, here: str) -> str | None:
    """The other site that a call concerns; None where it concerns this one."""
    site = request.headers.get(SITE_HEADER)
    return None if site is None or site == here else site


async def pass_on(
    request: Request, route: Any, site: str, *, gate: Gate, elsewhere: Elsewhere, credentials: Credentials
) -> Response:
    """What the agent of `site` answers to the call. Raises `DeniedError`, audited here, and as `Elsewhere.ask`."""
    call = await gate.admit(credentials, action_of(route), f"{request.method} {route.path}", at=site)
    request.state.call = call
    require_from_afar(route)
    query = request.url.query
    path = request.scope["raw_path"].decode("ascii")
    _require_plain(path)
    question = Question(
        method=request.method,
        target=f"{path}?{query}" if query else path,
        caller=call.subject.vouched,
        seconds=_within(request),
    )
    answered = await elsewhere.ask(site, question)
    body = b"" if answered.status in _WITHOUT_BODY else answered.body
    return Response(body, status_code=answered.status, media_type=answered.type)


def require_from_afar(route: Any) -> None:
    """Raises `ConfigError` where the route is for callers at its own agent."""
    if why := only_here(route):
        raise ConfigError(
            f"{route.path} is asked of an agent where it runs: {why}", hint="ask it there", code="only-there"
        )


def _require_plain(path: str) -> None:
    """Raises `ConfigError` for a path that another reader would shorten: what was decided about is what is asked there."""
    if {".", ".."} & set(path.split("/")):
        raise ConfigError(
            f"{visible(path)} is no call: it leads through . or ..",
            hint="the API is described at /openapi.json",
            code="no-such-call",
        )


async def answer_in_process(app: ASGIApp, question: Question, *, hub: str) -> Answered:
    """What this agent's own API answers to a question of the hub. Never raises but when it is cancelled."""
    import httpx  # a site with a hub has it loaded, an agent alone does without

    caller = question.caller
    state = {
        "caller": Caller(pid=-1, uid=-1, gid=-1, user=caller.name),
        "credentials": Credentials(user=caller.name, vouched=caller, via=hub),
    }

    async def with_caller(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": state}, receive, send)

    transport = httpx.ASGITransport(with_caller, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
        answer = await http.request(question.method, question.target)
    if len(answer.content) > LARGEST_BODY:
        return _too_large(len(answer.content))
    return Answered(status=answer.status_code, type=answer.headers.get("content-type", ""), body=answer.content)


def _too_large(size: int) -> Answered:
    problem = Problem(
        title="too large",
        status=413,
        detail=f"the answer has {size:,} bytes, and {LARGEST_BODY:,} go over a link",
        code="too-large",
        hint="ask for less at once, with --limit, or ask at the site itself",
        exit_code=1,
    )
    return Answered(status=413, type=PROBLEM_TYPE, body=problem.model_dump_json().encode())


def _within(request: Request) -> float:
    wish = request.headers.get(WITHIN_HEADER, "")
    return min(float(wish), LONGEST_SECONDS) if _SECONDS.fullmatch(wish) else USUAL_SECONDS
