"""A site's HTTP client for its hub: believes the hub's authority only, shows the site's certificate, ends every call in time.

The one place of the link that names an httpx error. A call is over within its deadline, with its whole answer, or raises what
the caller does next: `NotConnectedError` (nothing was taken: try later, what is queued is kept), `TransientError` (it was sent
and no answer came: ask again) or `DeniedError` (the hub says no; trying again changes nothing until a person acts, save that
an expired certificate is renewed). No redirect is followed, no proxy of the environment used.

`extensions={"deadline": seconds}` sets the deadline of one request.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from agent.control.schema import Problem
from agent.identity.tls import WrongTimeError
from state.model.errors import ConfigError, DeniedError, DistctlError, NotConnectedError, TransientError
from state.model.visible import visible

DEADLINE_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_KEPT_SECONDS: Final = 60.0  # shorter than the hub keeps an idle connection
_LARGEST_ANSWER: Final = 32 * 1024 * 1024
_PROBLEM_TYPE: Final = "application/problem+json"
_SHOWN: Final = 300
_KEPT: Final = "What is queued is kept"
_URL: Final = re.compile(r"https://[^/?#@\s]+/?", re.ASCII)


def hub_client(
    url: str, context: ssl.SSLContext, *, identity: str = "this site", deadline: float = DEADLINE_SECONDS
) -> httpx.AsyncClient:
    """A client whose addresses are paths at `url`. `identity` is how errors name our certificate; `deadline` is seconds a call.

    Raises `ConfigError` where `url` is not `https://host[:port]`.
    """
    if not _URL.fullmatch(url) or not urlsplit(url).hostname:
        raise ConfigError(f"{visible(url)} is not the address of a hub", hint="https://host:port", code="hub-url")
    return httpx.AsyncClient(
        base_url=url,
        transport=_BoundedTransport(context, hub=url.rstrip("/"), identity=identity, deadline=deadline),
        headers={"user-agent": "distctl", "accept-encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
    )


class _BoundedTransport(httpx.AsyncBaseTransport):
    """Calls under a total deadline, answers of bounded size, errors of our own tree."""

    def __init__(self, context: ssl.SSLContext, *, hub: str, identity: str, deadline: float) -> None:
        self._hub = hub
        self._identity = identity
        self._deadline = deadline
        self._inner = httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=httpx.Limits(keepalive_expiry=_KEPT_SECONDS)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = float(request.extensions.get("deadline", self._deadline))
        connect = min(_CONNECT_SECONDS, deadline)
        request.extensions["timeout"] = {"connect": connect, "pool": connect, "read": None, "write": None}
        try:
            async with asyncio.timeout(deadline):
                response = await self._inner.handle_async_request(request)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TransientError(
                f"the hub {self._hub} did not answer within {deadline:g} s", hint=_KEPT, code="hub-slow"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise self._translated(error) from None
        self._refuse_denials(response, body)
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  of an asynchronous transport
        async for piece in response.stream:
            body += piece
            if len(body) > _LARGEST_ANSWER:
                raise TransientError(
                    f"the hub {self._hub} answers with more than {_LARGEST_ANSWER} bytes", hint=_KEPT, code="hub-answer"
                )
        return bytes(body)

    def _refuse_denials(self, response: httpx.Response, body: bytes) -> None:
        if response.status_code not in {401, 403} or response.headers.get("content-type") != _PROBLEM_TYPE:
            return
        try:
            problem = Problem.model_validate_json(body)
        except ValidationError:
            return
        said = visible(problem.detail[:_SHOWN])
        hint = f"{visible(problem.hint[:_SHOWN])}. {_KEPT}" if problem.hint else _KEPT
        raise DeniedError(f"the hub {self._hub} refuses: {said}", hint=hint, code=visible(problem.code[:60]))

    def _translated(self, error: Exception) -> DistctlError:
        tls = next((one for one in _causes(error) if isinstance(one, ssl.SSLError) and not _is_cut(one)), None)
        if tls is not None:
            return self._distrust(tls)
        what = visible(str(error) or type(error).__name__)[:_SHOWN]
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return NotConnectedError(
                f"the hub {self._hub} cannot be reached: {what}", hint=_KEPT, code="hub-unreachable"
            )
        return TransientError(f"the line to the hub {self._hub} broke: {what}", hint=_KEPT, code="hub-line")

    def _distrust(self, error: ssl.SSLError) -> NotConnectedError:
        what, hint, code = self._reason(error)
        return NotConnectedError(f"no safe line to the hub {self._hub}: {what}", hint=f"{hint}. {_KEPT}", code=code)

    def _reason(self, error: ssl.SSLError) -> tuple[str, str, str]:
        """What is wrong, what to do, and its code."""
        if isinstance(error, WrongTimeError):
            return error.message, "set the clock of this machine; if it is right, that of the hub", error.reason_code
        reason = error.reason or ""
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _NAME_MISMATCHES:
                hint = "`hub.url` in the estate and the address used here must be the same"
                return f"its certificate is for another name ({error.verify_message})", hint, "hub-name"
            hint = "somebody is in between, or the hub was built anew without its `ca` folder: ask who runs it"
            what = f"its certificate is not of the authority that this site enrolled with ({error.verify_message})"
            return what, hint, "hub-authority"
        if reason.endswith(_REFUSES_OURS):
            hint = "this site belongs to another hub, or the hub has another authority now: enrol again"
            return f"it does not accept the certificate of {self._identity}", hint, "certificate-foreign"
        if any(word in reason for word in _VERSIONS):
            return (
                "it offers no TLS from 1.2 on",
                "something old or hostile is in between, or no hub is there",
                "hub-tls-version",
            )
        return (
            f"TLS failed ({visible(str(error))[:_SHOWN]})",
            "look whether a hub is there, and a proxy in between",
            "hub-tls",
        )


_NAME_MISMATCHES: Final = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_REFUSES_OURS: Final = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_DECRYPT_ERROR",
)
_VERSIONS: Final = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS", "WRONG_VERSION_NUMBER")


def _is_cut(error: ssl.SSLError) -> bool:
    """Whether the other end just went away."""
    return isinstance(error, ssl.SSLWantReadError | ssl.SSLEOFError)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what lies behind it, in turn."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
