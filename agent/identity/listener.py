"""The hub's listener: HTTPS on the estate's `listen` address, where agents enrol, renew, and do what other parts add.

Anybody may ask for the authority and present an invitation; an expired certificate may be renewed; every other route is given the
`AgentIdentity` that was proved, judged anew at each request. A denial also ends the connections of the site that are open.

Concurrency: requests are tasks of the agent's loop. Crash: nothing is kept here; the listener's certificate is a file that is
made anew when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from agent.control.schema import Problem
from agent.identity.certificates import AgentCertificate
from agent.identity.hub import HubIdentity
from agent.identity.judgement import AgentIdentity
from agent.identity.tls import load_credentials, server_context
from agent.identity.tls_peer import AgentProtocol
from agent.identity.wire import (
    AUTHORITY_PATH,
    ENROL_PATH,
    RENEW_PATH,
    AuthorityReply,
    CertificateReply,
    EnrolRequest,
)
from agent.serving import QuietServer
from agent.supervisor import sleep_unless
from state.model.errors import ConfigError, DeniedError, DistctlError, RejectedError
from state.model.visible import visible

Handler: TypeAlias = Callable[[Request, AgentIdentity], Awaitable[Response]]
"""Answers a request of the agent that it names. What it raises of `DistctlError` becomes a `Problem`."""

_log: Final = logging.getLogger("distctl.identity")
_PROBLEM_TYPE: Final = "application/problem+json"
_STATUS_OF_EXIT_CODE: Final = {2: 400, 3: 404, 4: 403, 6: 409, 7: 503}
_LARGEST_BODY: Final = 16 * 1024  # an invitation and a signing request are under 1 KiB
_BACKLOG: Final = 512  # a fleet that comes back at once
_KEEP_ALIVE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 2
_LOOKS_AT_CERTIFICATE_EVERY: Final = 3600.0
Model = TypeVar("Model", bound=BaseModel)


class Listener:
    """The door of a hub."""

    def __init__(self, hub: HubIdentity, *, listen: str) -> None:
        """`listen` is `address:port` as the estate says it. Nothing is bound before `serve`."""
        self._hub = hub
        self._listen = listen
        self._app = Starlette(exception_handlers=_PROBLEMS)
        self._server: uvicorn.Server | None = None
        self._distrusted: asyncio.Queue[str] = asyncio.Queue(maxsize=16)
        self._app.add_route(AUTHORITY_PATH, self._authority, methods=["GET"])
        self._app.add_route(ENROL_PATH, self._enrol, methods=["POST"])
        self._app.add_route(RENEW_PATH, self._renew, methods=["POST"])

    def add(self, path: str, handler: Handler) -> None:
        """Answer POST requests to `path` by `handler`, for agents with a valid certificate that is not denied."""

        async def answer(request: Request) -> Response:
            certificate = _certificate(request)
            identity = await self._hub.identify(certificate)
            response = await handler(request, identity)
            if certificate is not None and self._hub.has_newer(certificate):
                response.headers["connection"] = "close"  # the next one shows the newer certificate
            return response

        self._app.add_route(path, answer, methods=["POST"])

    async def serve(self, stop: asyncio.Event) -> None:
        """Answer until `stop` is set; requests under way get two seconds to end. May be run again after a failure.

        Raises `ConfigError` where the address cannot be listened on.
        """
        credentials, _ = await self._hub.keep_listener_certificate()
        context = server_context(credentials, self._hub.authority.pem, on_distrust=self._note_distrust)
        door = _bind(self._listen)
        self._server = QuietServer(_config(self._app, context), stop)
        self._hub.on_denied = self._hang_up
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._keep_certificate(context, stop), name="listener.certificate"),
                    tasks.create_task(self._write_distrust(), name="listener.distrust"),
                ]
                await self._server.serve(sockets=[door])
                for task in beside:
                    task.cancel()
        finally:
            self._hub.on_denied = lambda _: None
            self._server = None
            door.close()

    # The routes that are ours.

    async def _authority(self, _: Request) -> Response:
        return _json(AuthorityReply(authority=self._hub.authority.pem))

    async def _enrol(self, request: Request) -> Response:
        asked = _parse(EnrolRequest, await read_body(request, limit=_LARGEST_BODY))
        certificate = await self._hub.enrol(asked.token, asked.request)
        settings = self._hub.settings
        hub = settings.hub.site if settings.hub else ""
        return _json(CertificateReply(certificate=certificate.pem, hub=hub, environment=settings.environment))

    async def _renew(self, request: Request) -> Response:
        renewed = await self._hub.renew(_certificate(request))
        response = _json(CertificateReply(certificate=renewed.pem))
        response.headers["connection"] = "close"
        return response

    # Beside them.

    async def _keep_certificate(self, context: ssl.SSLContext, stop: asyncio.Event) -> None:
        while not await sleep_unless(stop, _LOOKS_AT_CERTIFICATE_EVERY, clock=self._hub.clock):
            try:
                credentials, is_new = await self._hub.keep_listener_certificate()
                if is_new:
                    load_credentials(context, credentials)
            except ConfigError as error:  # the one in use is good for 30 days yet
                _log.error("the certificate of the listener could not be made anew: %s", error)

    def _hang_up(self, site: str) -> None:
        """End the open connections of a site that was denied."""
        if self._server is None:
            return
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, AgentProtocol) and connection.certificate and connection.certificate.site == site:
                connection.transport.abort()

    def _note_distrust(self, reason: str) -> None:
        """In the middle of a handshake: somebody shows a certificate that is not of our authority."""
        if not self._distrusted.full():
            self._distrusted.put_nowait(reason)

    async def _write_distrust(self) -> None:
        while True:
            reason = await self._distrusted.get()
            await self._hub.note_refusal(
                None,
                DeniedError(
                    f"a certificate was shown that is not of the hub's authority: {visible(reason)}",
                    hint="an agent of another hub, or of this one before its authority was made anew, enrols again",
                    code="certificate-foreign",
                ),
            )


async def read_body(request: Request, *, limit: int) -> bytes:
    """The whole body, of `limit` bytes at most. Raises `RejectedError` while it is read where it is larger."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise RejectedError(f"the request is larger than {limit} bytes", code="too-large")
    return bytes(body)


def _certificate(request: Request) -> AgentCertificate | None:
    certificate: AgentCertificate | None = request.state.certificate
    return certificate


def _parse(model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in found["loc"])
        raise RejectedError(
            f"the request is malformed: {found['msg']}",
            place=place,
            hint="the agent may be of another version",
            code="malformed",
        ) from None


def _json(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(), media_type="application/json")


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the hub cannot listen on {listen}: {error}",
            hint="`hub.listen` in estate.yaml is an address of this machine and a free port",
            code="listen",
        ) from error
    # Connections take it on. asyncio sets it only where a socket was made with the number of TCP; an answer is two writes.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    door.setblocking(False)
    return door


def _config(app: Starlette, context: ssl.SSLContext) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=AgentProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_context_factory=lambda _config, _default: context,
    )


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, DistctlError)  # noqa: S101  registered for it
    status = _STATUS_OF_EXIT_CODE.get(error.exit_code, 500)
    if isinstance(error, RejectedError):
        status = 413 if error.code == "too-large" else 422
    headers = {"connection": "close"} if isinstance(error, DeniedError | RejectedError) else None
    return _problem(
        Problem(
            type=f"urn:distctl:problem:{error.code}",
            title=error.code,
            status=status,
            detail=error.message,
            code=error.code,
            hint=error.hint,
            exit_code=error.exit_code,
        ),
        headers,
    )


async def _no_such_call(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    hint = "one of the two agents is older than the other"
    return _problem(
        Problem(
            title=error.detail,
            status=error.status_code,
            detail=error.detail,
            code="no-such-call",
            hint=hint,
            exit_code=3,
        )
    )


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _unexpected(_: Request, error: Exception) -> Response:
    detail = f"the hub failed while it answered ({type(error).__name__})"
    hint = "the hub's log has the details"
    return _problem(Problem(title="internal error", status=500, detail=detail, code="internal", hint=hint, exit_code=1))


_PROBLEMS: Final[dict[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    DistctlError: _known,
    HTTPException: _no_such_call,
    ClientDisconnect: _gone,
    Exception: _unexpected,
}


def _problem(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    content = problem.model_dump(mode="json")
    return JSONResponse(content, status_code=problem.status, media_type=_PROBLEM_TYPE, headers=headers)
