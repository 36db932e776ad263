"""Enrolment over real TLS: an invitation becomes an identity once, whatever gets lost on the way."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from agent.clock import SystemClock
from agent.identity.authority import Authority
from agent.identity.certificates import make_key, make_request
from agent.identity.enrolment import enrol
from agent.identity.hub_client import hub_client
from agent.identity.invitation import Token
from agent.identity.site import SiteIdentity, certificate_in
from agent.identity.testing import WHO, HubRig, free_port, listening, running_hub
from agent.identity.tls import blind_context
from agent.identity.wire import ENROL_PATH
from state import audit
from state.audit import AuditEntry
from state.database import Database
from state.model.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    DistctlError,
    NotConnectedError,
    NotFoundError,
    TransientError,
)
from state.testing import NOON, FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def hub(tmp_path: Path, clock: FrozenClock) -> AsyncIterator[HubRig]:
    async with running_hub(tmp_path / "hub", clock=clock) as rig:
        yield rig


async def entries(database: Database, action: str) -> list[AuditEntry]:
    return await database.read(lambda connection: audit.entries(connection, action=action))


async def who(site: SiteIdentity) -> str:
    async with site.client() as client:
        answer = await client.post(WHO)
    return str(answer.json()["site"])


async def test_an_invited_agent_gets_an_identity_and_is_known_by_it(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    assert (site.site, site.estate, site.hub) == ("dc-north", "acme", hub.url)
    assert site.certificate.not_after - clock.now() == timedelta(days=45)
    assert await who(site) == "dc-north"
    [invited], [enrolled] = await entries(hub.database, "invite"), await entries(hub.database, "enrol")
    assert (invited.actor, invited.target) == ("anna", "agent dc-north")
    assert (enrolled.target, enrolled.after and enrolled.after["serial"]) == ("agent dc-north", site.certificate.serial)


async def test_an_identity_outlives_the_process(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    assert await who(SiteIdentity.open(tmp_path / "site", clock=clock)) == "dc-north"


async def test_the_key_stays_with_the_agents_account(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    folder = tmp_path / "site" / "identity"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {
        "agent.pem": 0o600,
        "hub.json": 0o600,
    }


async def test_the_secret_of_an_invitation_is_nowhere_at_the_hub(hub: HubRig, tmp_path: Path) -> None:
    secret = Token.read(await hub.invite()).secret.encode()
    await hub.database.write(lambda connection: None)
    kept = b"".join(file.read_bytes() for file in (tmp_path / "hub").rglob("*") if file.is_file())
    assert b"dc-north" in kept
    assert secret not in kept


# Invitations that are refused.


async def refused(hub: HubRig, token: str, data: Path, clock: FrozenClock) -> DeniedError:
    with pytest.raises(DeniedError) as error:
        async with asyncio.timeout(20):
            await enrol(hub.url, token, data, clock=clock)
    assert not (data / "identity" / "agent.pem").exists()
    return error.value


async def test_a_used_invitation_is_refused_and_says_since_when(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    token = await hub.invite()
    await enrol(hub.url, token, tmp_path / "first", clock=clock)
    error = await refused(hub, token, tmp_path / "second", clock)
    assert error.code == "token-used"
    assert "was used at 2026-03-02 12:00:00 UTC" in error.message
    assert await who(SiteIdentity.open(tmp_path / "first", clock=clock)) == "dc-north"


async def test_an_invitation_is_good_for_fifteen_minutes(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    early, late = await hub.invite(), await hub.invite("dc-south")
    clock.advance(timedelta(minutes=15) - timedelta(seconds=1))
    await enrol(hub.url, early, tmp_path / "early", clock=clock)
    clock.advance(1)
    error = await refused(hub, late, tmp_path / "late", clock)
    assert error.code == "token-expired"
    assert "expired at 2026-03-02 12:15:00 UTC, and the hub's clock says 2026-03-02 12:15:00 UTC" in error.message


async def test_an_invitation_for_another_site_is_refused(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    token = (await hub.invite("dc-north")).replace("dc-north", "dc-south")
    assert (await refused(hub, token, tmp_path / "site", clock)).code == "token-foreign"


async def test_an_invitation_that_nobody_gave_is_refused(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    made_up = str(Token.make("dc-north", hub.identity.authority.fingerprint))
    assert (await refused(hub, made_up, tmp_path / "site", clock)).code == "token-unknown"


@pytest.mark.parametrize(
    "damage", ["", "hello", "distctl-inv-1.dc-north", "cut", "doubled", "version", "\x00", "ü" * 200]
)
async def test_a_garbled_invitation_never_reaches_a_hub(tmp_path: Path, clock: FrozenClock, damage: str) -> None:
    whole = str(Token.make("dc-north", "ab" * 32))
    text = {"cut": whole[:-1], "doubled": whole + whole, "version": whole.replace("inv-1", "inv-2")}.get(damage, damage)
    with pytest.raises(DeniedError, match="no whole invitation") as error:
        await enrol("https://192.0.2.1", text, tmp_path / "site", clock=clock)
    assert error.value.code == "token-malformed"
    assert not (tmp_path / "site").exists()


def test_an_invitation_survives_being_copied_over_lines() -> None:
    token = Token.make("dc-north", "ab" * 32)
    text = str(token)
    assert Token.read(f" {text[:40]}\r\n  {text[40:]}\n") == token
    assert token.secret not in repr(token)


async def test_a_site_that_left_the_estate_cannot_enrol(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    token = await hub.invite()
    [estate] = hub.in_force
    sites = {name: site for name, site in estate.sites.items() if name != "dc-north"}
    hub.in_force.append(estate.model_copy(update={"sites": sites}))
    assert (await refused(hub, token, tmp_path / "site", clock)).code == "site-unknown"


async def test_invitations_are_for_other_sites_of_the_estate(hub: HubRig) -> None:
    with pytest.raises(NotFoundError, match="dc-north, dc-south, hq"):
        await hub.invite("berlin")
    with pytest.raises(ConflictError, match="site of the hub itself"):
        await hub.invite("hq")


async def test_a_refusal_tried_again_and_again_is_one_audit_entry(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    token = await hub.invite()
    clock.advance(timedelta(hours=1))
    for _ in range(20):
        await refused(hub, token, tmp_path / "site", clock)
    [entry] = await entries(hub.database, "refuse")
    assert (entry.target, entry.details) == ("agent dc-north", {"code": "token-expired"})
    assert "expired at 2026-03-02 12:15:00 UTC" in entry.reason


async def test_a_refusal_is_one_audit_entry_across_a_restart_of_the_hub(tmp_path: Path, clock: FrozenClock) -> None:
    for run in range(2):
        async with running_hub(tmp_path / "hub", clock=clock) as hub:
            made_up = str(Token.make("dc-north", hub.identity.authority.fingerprint))
            await refused(hub, made_up, tmp_path / "site", clock)
            assert len(await entries(hub.database, "refuse")) == 1, f"run {run}"


async def test_the_data_of_one_site_does_not_become_anothers(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    with pytest.raises(ConflictError, match="that of dc-north, and the invitation is for dc-south"):
        await hub.enrol(tmp_path / "site", clock=clock, site="dc-south")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b'{"token": 7}', 422),
        (b'{"token": "x", "request": "y"}', 403),
        (b"x" * 16_385, 413),
    ],
)
async def test_what_is_no_enrolment_is_refused_with_its_reason(hub: HubRig, body: bytes, status: int) -> None:
    async with httpx.AsyncClient(verify=blind_context(), base_url=hub.url) as client:
        answer = await client.post(ENROL_PATH, content=body)
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize("request_text", ["", "no pem", "weak"])
async def test_a_request_without_a_proved_key_leaves_the_invitation_unused(
    hub: HubRig, tmp_path: Path, clock: FrozenClock, request_text: str
) -> None:
    token = await hub.invite()
    if request_text == "weak":  # the last byte of its signature changed
        lines = make_request(make_key()).splitlines()
        lines[-2] = lines[-2][:-6] + ("AAAAAA" if lines[-2][-6:] != "AAAAAA" else "BBBBBB")
        request_text = "\n".join(lines)
    async with hub_client(hub.url, blind_context()) as client:
        answer = await client.post(ENROL_PATH, json={"token": token, "request": request_text, "newer": True})
    assert (answer.status_code, answer.json()["code"]) == (422, "certificate-request")
    await enrol(hub.url, token, tmp_path / "site", clock=clock)


# Lost replies.


@asynccontextmanager
async def line(to: str, *, swallows: int) -> AsyncIterator[str]:
    """A line to the hub that loses the replies of some connections, from the second on: the first asks for the authority."""
    host, _, port = to.removeprefix("https://").rpartition(":")
    made = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        loses = 2 <= made < 2 + swallows
        down, up = await asyncio.open_connection(host, int(port))
        said = 0

        async def upwards() -> None:
            nonlocal said
            while data := await reader.read(65536):
                said += 1
                up.write(data)

        async def downwards() -> None:
            while data := await down.read(65536):
                if loses and said > 1:  # the handshake is over: this is the reply
                    break
                writer.write(data)
            writer.transport.abort()

        tasks = [asyncio.ensure_future(upwards()), asyncio.ensure_future(downwards())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (up, writer):
            end.transport.abort()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_enrolment_whose_reply_was_lost_is_tried_again_to_the_same_identity(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    async with line(hub.url, swallows=1) as url:
        enrolling = asyncio.ensure_future(enrol(url, await hub.invite(), tmp_path / "site", clock=clock))
        async with asyncio.timeout(10):
            while not (standings := hub.identity.standings()) or not enrolling.done():
                clock.advance(0.5)
                await asyncio.sleep(0.01)
    [standing] = standings
    assert (await enrolling).certificate.der == standing.certificate
    assert len(await entries(hub.database, "enrol")) == 1


async def test_an_agent_that_gave_up_enrols_later_with_the_same_invitation_and_is_the_same(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    token = await hub.invite()
    async with line(hub.url, swallows=100) as url:
        enrolling = asyncio.ensure_future(enrol(url, token, tmp_path / "site", clock=clock))
        async with asyncio.timeout(10):
            while not enrolling.done():
                clock.advance(0.5)
                await asyncio.sleep(0.01)
        with pytest.raises(TransientError, match="broke"):
            await enrolling
    with pytest.raises(NotFoundError):
        SiteIdentity.open(tmp_path / "site", clock=clock)
    clock.advance(timedelta(hours=3))  # the invitation itself is no longer good
    site = await enrol(hub.url, token, tmp_path / "site", clock=clock)
    assert [site.certificate.der] == [standing.certificate for standing in hub.identity.standings()]
    assert site.certificate.enrolled_at < (NOON + timedelta(hours=1)).timestamp() * 1000
    assert await who(site) == "dc-north"
    assert (await refused(hub, token, tmp_path / "other", clock)).code == "token-used"


async def test_a_lost_reply_is_not_given_to_a_site_that_was_denied_since(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    token = await hub.invite()
    request = make_request(make_key())
    await hub.identity.enrol(token, request)
    await hub.identity.deny("dc-north", reason="stolen", by="anna")
    with pytest.raises(DeniedError, match="was used"):
        await hub.identity.enrol(token, request)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.identity.hub import HubIdentity
from agent.identity.listener import Listener
from agent.identity.testing import make_estate
from state.database import Database

async def main(folder, port, point):
    clock = SystemClock()
    estate = make_estate(port)
    crash = lambda passed: os.kill(os.getpid(), signal.SIGKILL) if passed == point else None
    async with await Database.open(folder / "distctl.db", now=clock.now(), crash=crash) as database:
        hub = await HubIdentity.open(folder, database, estate=lambda: estate, clock=clock)
        print((await hub.invite("dc-north", by="anna")).token, flush=True)
        await Listener(hub, listen=f"127.0.0.1:{port}").serve(asyncio.Event())

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
"""


@pytest.mark.parametrize("point", ["identity.enrol.before_commit", "identity.enrol.after_commit"])
async def test_a_hub_that_is_killed_while_it_enrols_ends_with_one_identity(tmp_path: Path, point: str) -> None:
    clock, port, folder = SystemClock(), free_port(), tmp_path / "hub"
    folder.mkdir()
    arguments = [sys.executable, "-c", KILLED, str(folder), str(port), point]
    child = await asyncio.to_thread(
        subprocess.Popen,
        arguments,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        text=True,
    )
    with child:
        assert child.stdout is not None
        token = (await asyncio.to_thread(child.stdout.readline)).strip()
        await listening(f"127.0.0.1:{port}")
        with pytest.raises((TransientError, NotConnectedError)):
            await enrol(f"https://127.0.0.1:{port}", token, tmp_path / "site", clock=clock)
    assert child.returncode == -9
    async with running_hub(folder, clock=FrozenClock(clock.now()), port=port) as hub:
        site = await enrol(hub.url, token, tmp_path / "site", clock=clock)
        assert [site.certificate.der] == [standing.certificate for standing in hub.identity.standings()]
        assert len(await entries(hub.database, "enrol")) == 1


# Renewal.


async def test_a_certificate_is_renewed_at_day_fifteen_and_keeps_its_identity(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    first = site.certificate
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(site.keep_renewed(stop))
        clock.advance(timedelta(days=15) - timedelta(hours=2))
        await asyncio.sleep(0.1)
        assert site.certificate == first
        async with asyncio.timeout(10):
            while site.certificate == first:
                clock.advance(600)
                await asyncio.sleep(0.01)
        stop.set()
    assert clock.now() - NOON < timedelta(days=15, hours=2)
    assert site.certificate.enrolled_at == first.enrolled_at
    assert site.certificate.key_hash == first.key_hash
    assert site.certificate.not_after - clock.now() > timedelta(days=44)
    assert SiteIdentity.open(tmp_path / "site", clock=clock).certificate == site.certificate
    assert len(await entries(hub.database, "renew")) == 1


async def test_a_renewal_whose_reply_was_lost_gives_the_same_certificate_again(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    clock.advance(timedelta(days=20))
    lost = await hub.identity.renew(site.certificate)
    assert (await site.renew()).der == lost.der
    assert (await site.renew()).der == lost.der
    assert len(await entries(hub.database, "renew")) == 1


async def test_an_expired_certificate_renews_and_does_nothing_else(
    hub: HubRig, tmp_path: Path, clock: FrozenClock
) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    clock.advance(timedelta(days=400))
    await fresh_listener(hub)
    with pytest.raises(DeniedError) as error:
        await who(site)
    assert error.value.code == "certificate-expired"
    assert "expired at 2026-04-16 12:00:00 UTC, and the hub's clock says 2027-04-06 12:00:00 UTC" in error.value.message
    assert "queued is kept" in error.value.hint
    await site.renew()
    assert await who(site) == "dc-north"


async def test_a_denied_agent_does_not_renew_and_says_why(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    site = await hub.enrol(tmp_path / "site", clock=clock)
    await hub.identity.deny("dc-north", reason="the laptop was stolen", by="anna")
    clock.advance(timedelta(days=50))
    await fresh_listener(hub)
    with pytest.raises(DeniedError, match="denied since 2026-03-02 12:00:00 UTC: the laptop was stolen") as error:
        await site.renew()
    assert error.value.code == "certificate-denied"
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(site.keep_renewed(stop))
        async with asyncio.timeout(10):
            while not site.trouble:
                clock.advance(1)
                await asyncio.sleep(0.01)
        stop.set()
    assert "laptop" in site.trouble
    assert len(await entries(hub.database, "refuse")) == 1


async def fresh_listener(hub: HubRig) -> None:
    """Wait until the listener has looked at its own certificate after the clock moved."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with hub_client(hub.url, blind_context()) as client:
                    await client.get("/identity/1/authority")
                _, is_new = await hub.identity.keep_listener_certificate()
            except DistctlError:
                is_new = True
            await asyncio.sleep(0.05)
            if not is_new:
                return


def test_a_certificate_for_another_key_is_not_taken(tmp_path: Path) -> None:
    ours, theirs = make_key(), make_key()
    authority = Authority.open(tmp_path / "ca", estate="acme", known=None, now=NOON)
    issued = authority.certify_agent(theirs.public_key(), site="dc-north", enrolled_at=1, now=NOON)
    answer = httpx.Response(200, json={"certificate": issued.pem})
    assert certificate_in(answer, theirs) == issued
    with pytest.raises(TransientError, match="certified another key than ours"):
        certificate_in(answer, ours)


# What lies in the data folder.


@pytest.mark.parametrize("damage", ["cut", "mixed", "no hub", "other text"])
async def test_a_damaged_identity_is_told_from_none_and_cured_by_enrolling(
    hub: HubRig, tmp_path: Path, clock: FrozenClock, damage: str
) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    await hub.enrol(tmp_path / "other", clock=clock, site="dc-south")
    folder = tmp_path / "site" / "identity"
    whole = (folder / "agent.pem").read_text()
    others = (tmp_path / "other" / "identity" / "agent.pem").read_text()
    end = "-----END PRIVATE KEY-----\n"
    if damage == "no hub":
        (folder / "hub.json").unlink()
    else:
        texts = {
            "cut": whole[:300],
            "mixed": others.partition(end)[0] + end + whole.partition(end)[2],
            "other text": "# nothing",
        }
        (folder / "agent.pem").write_text(texts[damage])
    with pytest.raises(ConfigError, match="Enrol this agent again"):
        SiteIdentity.open(tmp_path / "site", clock=clock)
    await hub.enrol(tmp_path / "site", clock=clock)
    assert await who(SiteIdentity.open(tmp_path / "site", clock=clock)) == "dc-north"


async def test_a_key_that_others_may_read_is_closed_to_them(hub: HubRig, tmp_path: Path, clock: FrozenClock) -> None:
    await hub.enrol(tmp_path / "site", clock=clock)
    path = tmp_path / "site" / "identity" / "agent.pem"
    path.chmod(0o644)
    SiteIdentity.open(tmp_path / "site", clock=clock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_agent_that_never_enrolled_is_told_how(tmp_path: Path, clock: FrozenClock) -> None:
    with pytest.raises(NotFoundError, match="agent enrol --hub URL --token T"):
        SiteIdentity.open(tmp_path, clock=clock)
