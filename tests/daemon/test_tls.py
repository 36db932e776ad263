"""The line between a site and its hub refuses what it must, says which certificate and until when, and keeps what is queued."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import Response

from agent.identity import tls_peer
from agent.identity.authority import Authority
from agent.identity.certificates import LIFETIME, make_key, write_key
from agent.identity.enrolment import enrol
from agent.identity.hub_client import hub_client
from agent.identity.invitation import Token
from agent.identity.judgement import AgentIdentity
from agent.identity.listener_certificate import keep_listener_certificate
from agent.identity.site import SiteIdentity, join
from agent.identity.testing import WHO, HubRig, free_port, running_hub
from agent.identity.tls import blind_context, client_context, server_context
from state import audit
from state.audit import AuditEntry
from state.model.clock import to_millis
from state.model.errors import ConfigError, DeniedError, DistctlError, NotConnectedError, TransientError
from state.testing import NOON, FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def hub(tmp_path: Path, clock: FrozenClock) -> AsyncIterator[HubRig]:
    async with running_hub(tmp_path / "hub", clock=clock) as rig:
        yield rig


def make_authority(folder: Path, estate: str = "acme") -> Authority:
    return Authority.open(folder, estate=estate, known=None, now=NOON)


async def refusals(hub: HubRig) -> list[AuditEntry]:
    return await hub.database.read(lambda connection: audit.entries(connection, action="refuse"))


async def ask(url: str, context: ssl.SSLContext, path: str = WHO, deadline: float = 10) -> httpx.Response:
    async with hub_client(url, context, identity="dc-north (77)", deadline=deadline) as client:
        return await client.post(path)


async def failure(asking: object) -> DistctlError:
    with pytest.raises(DistctlError) as error:
        async with asyncio.timeout(20):
            await asking  # type: ignore[misc]
    return error.value


def credentials(folder: Path, authority: Authority, *, at: timedelta = timedelta(0), site: str = "dc-north") -> Path:
    """Key and certificate of an agent, issued that long after noon."""
    key = make_key()
    issued = authority.certify_agent(key.public_key(), site=site, enrolled_at=to_millis(NOON + at), now=NOON + at)
    path = folder / f"{issued.serial}.pem"
    path.write_bytes(join(key, issued, authority.pem))
    return path


@asynccontextmanager
async def impostor(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Something that speaks TLS and answers whatever is asked with a page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def listener_context(
    folder: Path, authority: Authority, *, host: str = "127.0.0.1", at: timedelta = timedelta(0)
) -> ssl.SSLContext:
    path = folder / f"listener-{free_port()}.pem"
    keep_listener_certificate(path, authority, host=host, now=NOON + at)
    return server_context(path, authority.pem, on_distrust=lambda _: None)


# A hub that is not the one.


async def test_a_hub_of_another_authority_is_refused_and_nothing_is_sent(tmp_path: Path, clock: FrozenClock) -> None:
    ours, theirs = make_authority(tmp_path / "ours"), make_authority(tmp_path / "theirs")
    context = client_context(ours.pem, now=clock.now, credentials=credentials(tmp_path, ours))
    async with impostor(listener_context(tmp_path, theirs)) as url:
        error = await failure(ask(url, context))
    assert (type(error), error.code) == (NotConnectedError, "hub-authority")
    assert "not of the authority that this site enrolled with" in error.message
    assert "What is queued is kept" in error.hint


async def test_an_invitation_is_not_sent_to_a_hub_of_another_authority(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    token = Token.read(await hub.invite())
    other = Token(site=token.site, secret=token.secret, fingerprint="ab" * 32)
    error = await failure(enrol(hub.url, str(other), tmp_path / "site", clock=clock))
    assert (type(error), error.code) == (DeniedError, "hub-authority")
    assert hub.identity.authority.fingerprint[:16] in error.message
    assert await refusals(hub) == []


async def test_an_impostor_that_shows_the_right_authority_cannot_speak_for_it(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    """Anybody can fetch the authority's certificate; without its key nobody gets the invitation's secret."""
    seen = bytearray()
    theirs = make_authority(tmp_path / "theirs")
    reply = f'{{"authority":"{hub.identity.authority.pem}"}}'.replace("\n", "\\n").encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(reply), reply))
        writer.close()

    context = listener_context(tmp_path, theirs)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        token = await hub.invite()
        error = await failure(enrol(url, token, tmp_path / "site", clock=clock))
    assert (type(error), error.code) == (NotConnectedError, "hub-authority")
    assert b"GET /identity/1/authority" in seen
    assert Token.read(token).secret.encode() not in seen


async def test_a_hub_under_another_name_is_refused(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")
    async with impostor(listener_context(tmp_path, ours, host="hub.acme.example")) as url:
        error = await failure(ask(url, client_context(ours.pem, now=clock.now)))
    assert (type(error), error.code) == (NotConnectedError, "hub-name")


async def test_an_agents_certificate_does_not_make_a_hub(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials(tmp_path, ours))
    async with impostor(context) as url:
        error = await failure(ask(url, client_context(ours.pem, now=clock.now)))
    assert (type(error), error.code) == (NotConnectedError, "hub-authority")


async def test_a_site_whose_clock_is_of_1970_is_told_both_times(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    woken = FrozenClock(NOON.replace(year=1970))
    site = SiteIdentity.open(tmp_path / "site", clock=woken)
    async with site.client() as client:
        error = await failure(client.post(WHO))
    assert (type(error), error.code) == (NotConnectedError, "hub-certificate-not-yet-valid")
    assert (
        "not valid before 2026-03-02 11:00:00 UTC, and this machine's clock says 1970-03-02 12:00:00 UTC"
        in error.message
    )
    assert "set the clock of this machine" in error.hint


async def test_a_hub_whose_certificate_expired_is_refused_with_both_times(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")
    context = client_context(ours.pem, now=clock.now)
    async with impostor(listener_context(tmp_path, ours)) as url:
        clock.advance(LIFETIME)
        error = await failure(ask(url, context))
    assert (type(error), error.code) == (NotConnectedError, "hub-certificate-expired")
    assert "expired at 2026-04-16 12:00:00 UTC, and this machine's clock says 2026-04-16 12:00:00 UTC" in error.message


async def test_a_hub_that_cannot_be_reached_is_no_reason_to_lose_anything(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")
    error = await failure(ask(f"https://127.0.0.1:{free_port()}", client_context(ours.pem, now=clock.now)))
    assert (type(error), error.code) == (NotConnectedError, "hub-unreachable")


# An agent that is not one.


async def test_without_a_certificate_nothing_but_enrolment_is_answered(hub: HubRig, clock: FrozenClock) -> None:
    context = client_context(hub.identity.authority.pem, now=clock.now)
    for path in (WHO, "/identity/1/renew"):
        error = await failure(ask(hub.url, context, path))
        assert (type(error), error.code) == (DeniedError, "certificate-missing")
    [entry] = await refusals(hub)
    assert entry.target == "agents"


async def test_a_certificate_of_another_authority_is_refused_and_noted_once(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    theirs = make_authority(tmp_path / "theirs")
    context = client_context(hub.identity.authority.pem, now=clock.now, credentials=credentials(tmp_path, theirs))
    for _ in range(5):
        error = await failure(ask(hub.url, context))
        assert (type(error), error.code) == (NotConnectedError, "certificate-foreign")
        assert "does not accept the certificate of dc-north (77)" in error.message
    [entry] = await eventually(lambda: refusals(hub))
    assert entry.details == {"code": "certificate-foreign"}


async def test_a_self_signed_certificate_is_refused(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    own = make_authority(tmp_path / "own")
    path = tmp_path / "own.pem"
    path.write_bytes(write_key(own.key) + own.certificate.public_bytes(Encoding.PEM))
    context = client_context(hub.identity.authority.pem, now=clock.now, credentials=path)
    error = await failure(ask(hub.url, context))
    assert (type(error), error.code) == (NotConnectedError, "certificate-foreign")


async def test_the_listeners_certificate_does_not_make_an_agent(hub: HubRig, clock: FrozenClock) -> None:
    path, _ = await hub.identity.keep_listener_certificate()
    context = client_context(hub.identity.authority.pem, now=clock.now, credentials=path)
    error = await failure(ask(hub.url, context))
    assert error.code == "certificate-foreign"


async def test_a_certificate_of_the_future_is_refused_with_both_times(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    path = credentials(tmp_path, hub.identity.authority, at=timedelta(days=3))
    context = client_context(hub.identity.authority.pem, now=clock.now, credentials=path)
    for route in (WHO, "/identity/1/renew"):
        error = await failure(ask(hub.url, context, route))
        assert (type(error), error.code) == (DeniedError, "certificate-not-yet-valid")
        assert (
            "of dc-north is not valid before 2026-03-05 11:00:00 UTC, and the hub's clock says 2026-03-02 12:00:00 UTC"
            in error.message
        )


async def test_a_certificate_of_a_site_that_left_the_estate_is_refused(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    path = credentials(tmp_path, hub.identity.authority, site="berlin")
    context = client_context(hub.identity.authority.pem, now=clock.now, credentials=path)
    error = await failure(ask(hub.url, context))
    assert (type(error), error.code) == (DeniedError, "site-unknown")


# Denied, and replaced.


async def test_a_denial_holds_on_a_connection_that_is_open(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    """The next request on it fails, whether the connection is cut first or the request is judged first."""
    site = await hub.enrol(tmp_path / "site", clock=clock)
    async with site.client() as client:
        assert (await client.post(WHO)).json()["site"] == "dc-north"
        denial = asyncio.ensure_future(hub.identity.deny("dc-north", reason="stolen", by="anna"))
        answers: list[object] = []
        async with asyncio.timeout(5):
            while not answers or isinstance(answers[-1], httpx.Response):
                try:
                    answers.append(await client.post(WHO))
                except DistctlError as cut:
                    answers.append(cut)
        await denial
        error = await failure(client.post(WHO))
    assert (type(error), error.code) == (DeniedError, "certificate-denied")
    assert "is denied since 2026-03-02 12:00:00 UTC: stolen" in error.message


async def test_a_denial_ends_the_calls_of_that_site_that_wait_and_no_others(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    waiting: asyncio.Queue[str] = asyncio.Queue()
    news = asyncio.Event()

    async def wait(_: Request, identity: AgentIdentity) -> Response:
        waiting.put_nowait(identity.site)
        await news.wait()
        return Response(b"news")

    hub.listener.add("/test/1/wait", wait)
    north = await hub.enrol(tmp_path / "north", clock=clock)
    south = await hub.enrol(tmp_path / "south", clock=clock, site="dc-south")
    async with north.client() as client, south.client() as other:
        pulling = asyncio.ensure_future(client.post("/test/1/wait"))
        others = asyncio.ensure_future(other.post("/test/1/wait"))
        async with asyncio.timeout(5):
            assert {await waiting.get(), await waiting.get()} == {"dc-north", "dc-south"}
            await hub.identity.deny("dc-north", reason="stolen", by="anna")
            error = await failure(pulling)
            news.set()
            assert (await others).content == b"news"
    assert type(error) is TransientError


async def test_a_site_that_is_allowed_again_goes_on_with_its_certificate(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    await hub.identity.deny("dc-north", reason="looked odd", by="anna")
    await hub.identity.allow("dc-north", reason="it was us", by="anna")
    async with site.client() as client:
        assert (await client.post(WHO)).json() == {"site": "dc-north", "serial": site.certificate.serial}


async def test_a_new_enrolment_replaces_the_one_before(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    old = await hub.enrol(tmp_path / "old", clock=clock)
    new = await hub.enrol(tmp_path / "new", clock=clock)  # in the same millisecond
    async with old.client() as client:
        error = await failure(client.post(WHO))
    assert (type(error), error.code) == (DeniedError, "certificate-replaced")
    async with new.client() as client:
        assert (await client.post(WHO)).json()["serial"] == new.certificate.serial


async def test_what_was_denied_stays_denied_after_the_site_was_invited_anew(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    stolen = await hub.enrol(tmp_path / "stolen", clock=clock)
    await hub.identity.deny("dc-north", reason="stolen", by="anna")
    new = await hub.enrol(tmp_path / "new", clock=clock)
    async with new.client() as client, stolen.client() as thief:
        assert (await client.post(WHO)).status_code == 200
        assert (await failure(thief.post(WHO))).code == "certificate-denied"


async def test_a_renewed_certificate_is_shown_after_the_answer_that_is_under_way(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    first = site.certificate.serial
    async with site.client() as client:
        assert (await client.post(WHO)).json()["serial"] == first
        clock.advance(timedelta(days=16))
        await site.renew()
        assert (await client.post(WHO)).json()["serial"] == first  # its connection is older
        assert (await client.post(WHO)).json()["serial"] == site.certificate.serial != first


# Old and hostile wires.


@contextmanager
def old_tls(context: ssl.SSLContext) -> Iterator[ssl.SSLContext]:
    """`context`, that offers TLS 1.1 at best."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        yield context


async def test_a_site_of_downgraded_tls_is_refused(hub: HubRig, clock: FrozenClock) -> None:
    with old_tls(blind_context()) as context:
        error = await failure(ask(hub.url, context))
    assert (type(error), error.code) == (NotConnectedError, "hub-tls-version")


async def test_a_hub_of_downgraded_tls_is_refused(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")
    with old_tls(listener_context(tmp_path, ours)) as context:
        async with impostor(context) as url:
            error = await failure(ask(url, client_context(ours.pem, now=clock.now)))
    assert (type(error), error.code) == (NotConnectedError, "hub-tls-version")
    assert "TLS from 1.2 on" in error.message


async def test_the_newest_tls_is_spoken(hub: HubRig) -> None:
    host, _, port = hub.url.removeprefix("https://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=blind_context())
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.transport.abort()


async def test_a_hub_without_tls_is_refused(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await failure(ask(url, client_context(ours.pem, now=clock.now)))
    assert type(error) is NotConnectedError


async def test_an_answer_that_trickles_ends_with_its_deadline(tmp_path: Path, clock: FrozenClock) -> None:
    ours = make_authority(tmp_path / "ours")

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async with await asyncio.start_server(trickle, "127.0.0.1", 0, ssl=listener_context(tmp_path, ours)) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        began = asyncio.get_running_loop().time()
        error = await failure(ask(url, client_context(ours.pem, now=clock.now), deadline=0.5))
        assert asyncio.get_running_loop().time() - began < 5
    assert (type(error), error.code) == (TransientError, "hub-slow")
    assert "within 0.5 s" in error.message


async def test_a_redirect_is_not_followed(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    async def lead_astray(_: Request, __: AgentIdentity) -> Response:
        return Response(status_code=307, headers={"location": "https://192.0.2.1/"})

    hub.listener.add("/test/1/astray", lead_astray)
    site = await hub.enrol(tmp_path / "site", clock=clock)
    async with site.client() as client:
        assert (await client.post("/test/1/astray")).status_code == 307


@pytest.mark.parametrize(
    "url", ["http://hub:7443", "https://", "https://u:p@hub", "https://hub/path", "hub:7443", "https://h b"]
)
def test_an_address_that_is_no_hubs_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a hub"):
        hub_client(url, blind_context())


async def test_strangers_that_say_nothing_are_cut_off_and_do_not_shut_out_agents(
    hub: HubRig, tmp_path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_peer, "_STRANGERS", 3)
    monkeypatch.setattr(tls_peer, "_STRANGERS_SECONDS", 0.5)
    site = await hub.enrol(tmp_path / "site", clock=clock)
    host, _, port = hub.url.removeprefix("https://").rpartition(":")
    held = [await asyncio.open_connection(host, int(port), ssl=blind_context()) for _ in range(5)]
    held[0][1].write(b"POST /identity/1/enrol HTTP/1.1\r\nhost: hub\r\ncontent-length: 100\r\n\r\n{")
    async with site.client() as client:
        assert (await client.post(WHO)).status_code == 200
    async with asyncio.timeout(5):
        for reader, writer in held:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.transport.abort()


async def test_strangers_beyond_the_limit_are_hung_up_on_at_once(hub: HubRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_peer, "_STRANGERS", 2)
    host, _, port = hub.url.removeprefix("https://").rpartition(":")
    held = [await asyncio.open_connection(host, int(port), ssl=blind_context()) for _ in range(3)]
    async with asyncio.timeout(5):  # outside: a TimeoutError is an OSError
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await held[2][0].readexactly(1)
    assert not any(reader.at_eof() for reader, _ in held[:2])
    for _, writer in held:
        writer.transport.abort()


async def test_the_hub_goes_on_with_a_new_certificate_of_its_own(hub: HubRig, clock: FrozenClock) -> None:
    context = client_context(hub.identity.authority.pem, now=clock.now)
    async with asyncio.timeout(20):
        for _ in range(60):
            clock.advance(timedelta(days=1))
            error = await eventually_refused(hub, context)
            assert error.code == "certificate-missing", f"day {(clock.now() - NOON).days}"


async def test_a_listener_that_cannot_have_its_port_says_so(tmp_path: Path, clock: FrozenClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ExceptionGroup) as group:
            async with running_hub(tmp_path / "hub", clock=clock, port=port):
                await asyncio.sleep(5)
    assert group.group_contains(ConfigError, match="cannot listen on 127.0.0.1")


async def test_an_answer_does_not_wait_for_an_acknowledgement(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    """With Nagle's algorithm every call takes the 40 ms of a delayed acknowledgement."""
    site = await hub.enrol(tmp_path / "site", clock=clock)
    async with site.client() as client:
        await client.post(WHO)
        assert hub.listener._server is not None
        [connection] = hub.listener._server.server_state.connections
        wire = connection.transport.get_extra_info("socket")
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def eventually_refused(hub: HubRig, context: ssl.SSLContext) -> DistctlError:
    """What is said without a certificate, once the listener had time to look at its own."""
    while True:
        error = await failure(ask(hub.url, context))
        if error.code != "hub-certificate-expired":
            return error
        await asyncio.sleep(0.01)


async def eventually(read: Callable[[], object]) -> list[AuditEntry]:
    async with asyncio.timeout(5):
        while True:
            found: list[AuditEntry] = await read()  # type: ignore[misc]
            if found:
                return found
            await asyncio.sleep(0.01)
