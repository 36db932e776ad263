"""The hub's authority and whom it lets speak: made once, never overwritten, judged anew at each request."""

from __future__ import annotations

import shutil
import stat
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.identity.authority import Authority
from agent.identity.certificates import LIFETIME, AgentCertificate, make_key, make_request
from agent.identity.hub import UNITS, HubIdentity, begin_anew
from agent.identity.invitation import Token
from agent.identity.judgement import judge
from agent.identity.listener_certificate import keep_listener_certificate
from agent.identity.testing import WHO, make_estate, running_hub
from state import audit, identities
from state.audit import AuditEntry
from state.database import Database
from state.identities import Standing
from state.model.clock import to_millis
from state.model.errors import ConfigError, ConflictError, DeniedError, NotFoundError
from state.testing import NOON, FrozenClock, temporary_database

SITES = {"hq", "dc-north", "dc-south"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with temporary_database(tmp_path) as database:
        yield database


def authority_in(folder: Path, *, known: bytes | None = None, now: datetime = NOON) -> Authority:
    return Authority.open(folder, estate="acme", known=known, now=now)


async def open_hub(data: Path, database: Database, clock: FrozenClock) -> HubIdentity:
    return await HubIdentity.open(data, database, estate=lambda: make_estate(7443), clock=clock)


async def entries(database: Database) -> list[AuditEntry]:
    """Oldest first."""
    return (await database.read(audit.entries))[::-1]


def certificate(folder: Path, *, enrolled_at: datetime = NOON, now: datetime = NOON) -> AgentCertificate:
    key = make_key().public_key()
    return authority_in(folder).certify_agent(key, site="dc-north", enrolled_at=to_millis(enrolled_at), now=now)


# The authority.


def test_an_authority_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = authority_in(tmp_path / "ca")
    content = {file.name: file.read_bytes() for file in (tmp_path / "ca").iterdir()}
    found = authority_in(tmp_path / "ca", now=NOON + timedelta(days=900))
    assert found.fingerprint == made.fingerprint
    assert {file.name: file.read_bytes() for file in (tmp_path / "ca").iterdir()} == content
    assert found.estate == "acme"
    assert timedelta(days=3652) <= found.not_after - NOON <= timedelta(days=3654)
    assert not (tmp_path / "ca.new").exists()


def test_the_authority_is_for_the_hubs_account_alone(tmp_path: Path) -> None:
    authority_in(tmp_path / "ca")
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "ca" / "key.pem").stat().st_mode) == 0o600


def test_a_start_that_was_killed_while_it_made_the_authority_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "ca.new").mkdir()
    (tmp_path / "ca.new" / "key.pem").write_text("half a k")
    authority_in(tmp_path / "ca").certify_listener(make_key().public_key(), host="hub", now=NOON)


@pytest.mark.parametrize(
    ("file", "content", "finding"),
    [
        ("key.pem", None, "lacks its key.pem"),
        ("certificate.pem", None, "lacks its certificate.pem"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n", "damaged"),
        ("certificate.pem", b"", "damaged"),
        ("key.pem", "other", r"damaged: key.pem is not the key of certificate.pem"),
    ],
)
def test_a_damaged_authority_is_refused_with_its_cure_and_left_as_it_is(
    tmp_path: Path, file: str, content: bytes | str | None, finding: str
) -> None:
    authority_in(tmp_path / "ca")
    path = tmp_path / "ca" / file
    if content is None:
        path.unlink()
    elif content == "other":
        authority_in(tmp_path / "other")
        shutil.copy(tmp_path / "other" / file, path)
    else:
        path.write_bytes(bytes(content))  # type: ignore[arg-type]
    before = {one.name: one.read_bytes() for one in (tmp_path / "ca").iterdir()}
    with pytest.raises(ConfigError, match=finding) as error:
        authority_in(tmp_path / "ca")
    assert "Put the `ca` folder back from its copy" in error.value.hint
    assert error.value.file == str(tmp_path / "ca")
    assert {one.name: one.read_bytes() for one in (tmp_path / "ca").iterdir()} == before


async def test_a_hub_that_lost_its_authority_does_not_begin_another_unasked(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    (tmp_path / "ca").rename(tmp_path / "escrow")
    with pytest.raises(ConfigError, match=r"authority is missing.*Put the `ca` folder back"):
        await open_hub(tmp_path, database, clock)
    assert not (tmp_path / "ca").exists()
    authority_in(tmp_path / "ca")
    with pytest.raises(ConfigError, match="another authority"):
        await open_hub(tmp_path, database, clock)
    shutil.rmtree(tmp_path / "ca")
    shutil.copytree(tmp_path / "escrow", tmp_path / "ca")
    assert (await open_hub(tmp_path, database, clock)).authority.fingerprint == hub.authority.fingerprint


async def test_a_hub_without_escrow_begins_anew_when_a_person_says_so(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    first = await open_hub(tmp_path, database, clock)
    await begin_anew(tmp_path, database, reason="the key was copied", by="anna", clock=clock)
    second = await open_hub(tmp_path, database, clock)
    assert second.authority.fingerprint != first.authority.fingerprint
    assert authority_in(tmp_path / f"ca.until-{to_millis(NOON)}").fingerprint == first.authority.fingerprint
    assert [(one.actor, one.action, one.reason) for one in await entries(database)] == [
        ("agent", "begin", "the first start as a hub"),
        ("anna", "replace", "the key was copied"),
        ("agent", "begin", "the first start as a hub"),
    ]


def test_certificates_end_with_the_authority_and_none_is_issued_after(tmp_path: Path) -> None:
    authority = authority_in(tmp_path / "ca")
    late = authority.not_after - timedelta(days=10)
    assert certificate(tmp_path / "ca", now=late).not_after == authority.not_after
    with pytest.raises(ConfigError, match="authority ended at"):
        certificate(tmp_path / "ca", now=authority.not_after)


async def test_a_certificate_says_whose_it_is(tmp_path: Path) -> None:
    read = certificate(tmp_path / "ca")
    assert (read.estate, read.site, read.enrolled_at) == ("acme", "dc-north", to_millis(NOON))
    assert read.due_at == NOON + timedelta(days=15)
    names = x509.load_der_x509_certificate(read.der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"distctl://acme/dc-north/{to_millis(NOON)}"
    ]


# The listener's own.


def test_the_listeners_certificate_is_kept_until_day_fifteen(tmp_path: Path) -> None:
    authority, path = authority_in(tmp_path / "ca"), tmp_path / "listener.pem"
    days = [
        day
        for day in range(40)
        if keep_listener_certificate(path, authority, host="hub.acme.example", now=NOON + timedelta(days=day))
    ]
    assert days == [0, 15, 30]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("trouble", ["damaged", "empty", "other host", "other authority", "clock went back"])
def test_a_listeners_certificate_that_does_not_fit_is_made_anew(tmp_path: Path, trouble: str) -> None:
    authority, path = authority_in(tmp_path / "ca"), tmp_path / "listener.pem"
    host, now = "10.0.0.7", NOON
    keep_listener_certificate(path, authority, host=host, now=now)
    match trouble:
        case "damaged":
            path.write_bytes(path.read_bytes()[:-1200])
        case "empty":
            path.write_bytes(b"")
        case "other host":
            host = "hub.acme.example"
        case "other authority":
            authority = authority_in(tmp_path / "other")
        case "clock went back":
            now = NOON - timedelta(days=2)
    assert keep_listener_certificate(path, authority, host=host, now=now)
    assert not keep_listener_certificate(path, authority, host=host, now=now)


# Who may speak.


@pytest.mark.parametrize(
    ("standing", "now", "may_renew", "code"),
    [
        (Standing(site="dc-north"), NOON, True, ""),
        (Standing(site="dc-north"), NOON + LIFETIME - timedelta(seconds=1), True, ""),
        (Standing(site="dc-north"), NOON + LIFETIME, True, "certificate-expired"),
        (Standing(site="dc-north"), NOON + timedelta(days=4000), True, "certificate-expired"),
        (Standing(site="dc-north"), NOON - timedelta(hours=1), True, ""),
        (Standing(site="dc-north"), NOON - timedelta(hours=1, seconds=1), False, "certificate-not-yet-valid"),
        (Standing(site="dc-north", enrolled_at=to_millis(NOON), certificate=b"."), NOON, True, ""),
        (
            Standing(site="dc-north", enrolled_at=to_millis(NOON) + 1, certificate=b"."),
            NOON,
            False,
            "certificate-replaced",
        ),
        (Standing(site="dc-north", denied_until=to_millis(NOON) - 1, denied_reason="x"), NOON, True, ""),
        (Standing(site="dc-north", denied_until=to_millis(NOON), denied_reason="x"), NOON, False, "certificate-denied"),
        (
            Standing(site="dc-north", denied_until=to_millis(NOON), denied_reason="x"),
            NOON + LIFETIME,
            False,
            "certificate-denied",
        ),
    ],
)
def test_a_certificate_speaks_while_it_is_valid_newest_and_not_denied(
    tmp_path: Path, standing: Standing, now: datetime, may_renew: bool, code: str
) -> None:
    shown = certificate(tmp_path / "ca")

    def verdict(*, may_be_expired: bool) -> str:
        try:
            found = judge(shown, standing, sites=SITES, now=now, may_be_expired=may_be_expired)
        except DeniedError as error:
            return error.code if error.hint else "no hint"
        assert (found.site, found.serial, found.not_after) == ("dc-north", shown.serial, shown.not_after)
        return ""

    assert verdict(may_be_expired=False) == code
    assert verdict(may_be_expired=True) == ("" if may_renew else code)


def test_a_certificate_of_a_site_that_is_not_in_the_estate_speaks_for_nobody(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="no such site"):
        judge(certificate(tmp_path / "ca"), Standing(site="dc-north"), sites={"hq"}, now=NOON, may_be_expired=True)


# Deny and allow.


async def test_denying_and_allowing_are_in_the_audit_with_what_was_before(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    given = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
    assert (await hub.deny("dc-north", reason="stolen", by="anna")).is_denied
    await hub.allow("dc-north", reason="found again", by="bert")
    deny, allow = (await entries(database))[-2:]
    assert (deny.actor, deny.action, deny.target, deny.reason) == ("anna", "deny", "agent dc-north", "stolen")
    assert deny.before == {"enrolled_at": "2026-03-02 12:00:00 UTC", "serial": given.serial}
    assert deny.after == {**deny.before, "denied_until": "2026-03-02 12:00:00 UTC", "denied_reason": "stolen"}
    assert (allow.actor, allow.reason, allow.before, allow.after) == ("bert", "found again", deny.after, deny.before)


async def test_a_denial_outlives_a_restart_of_the_hub(tmp_path: Path, database: Database, clock: FrozenClock) -> None:
    hub = await open_hub(tmp_path, database, clock)
    given = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
    await hub.deny("dc-north", reason="stolen", by="anna")
    with pytest.raises(DeniedError, match="stolen"):
        await (await open_hub(tmp_path, database, clock)).identify(given)


async def test_a_site_can_be_denied_before_it_was_ever_seen(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    """A hub that was built again knows nobody, and its authority's certificates are still out there."""
    hub = await open_hub(tmp_path, database, clock)
    await hub.deny("dc-north", reason="stolen", by="anna")
    with pytest.raises(DeniedError, match="stolen"):
        await hub.identify(certificate(tmp_path / "ca"))


async def test_a_denial_withdraws_the_invitations_that_are_open(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    north, south = [(await hub.invite(site, by="anna")).token for site in ("dc-north", "dc-south")]
    await hub.deny("dc-north", reason="stolen", by="anna")
    with pytest.raises(DeniedError, match="withdrawn at 2026-03-02 12:00:00 UTC, when the site was denied"):
        await hub.enrol(north, make_request(make_key()))
    await hub.enrol(south, make_request(make_key()))
    await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))


async def test_what_is_not_there_cannot_be_denied_or_allowed(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    with pytest.raises(NotFoundError, match="berlin"):
        await hub.deny("berlin", reason="why not", by="anna")
    with pytest.raises(ConflictError, match="dc-north is not denied"):
        await hub.allow("dc-north", reason="why not", by="anna")


async def test_a_denial_by_a_clock_that_went_back_still_holds(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    given = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
    clock.jump(-timedelta(minutes=30))
    await hub.deny("dc-north", reason="stolen", by="anna")
    with pytest.raises(DeniedError, match="stolen"):
        await hub.identify(given)
    again = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
    assert again.enrolled_at > given.enrolled_at
    assert (await hub.identify(again)).serial == again.serial


# A hub that is older than its agents.


async def test_a_hub_restored_from_before_an_enrolment_knows_the_agent_by_its_certificate(
    tmp_path: Path, clock: FrozenClock
) -> None:
    async with running_hub(tmp_path / "hub", clock=clock) as hub:
        pass
    shutil.copytree(tmp_path / "hub", tmp_path / "backup")
    port = int(hub.url.rpartition(":")[2])
    async with running_hub(tmp_path / "hub", clock=clock, port=port) as hub:
        site = await hub.enrol(tmp_path / "site", clock=clock)
    shutil.rmtree(tmp_path / "hub")
    shutil.copytree(tmp_path / "backup", tmp_path / "hub")
    async with running_hub(tmp_path / "hub", clock=clock, port=port) as hub:
        for _ in range(2):
            async with site.client() as client:
                assert (await client.post(WHO)).json()["site"] == "dc-north"
        [standing] = hub.identity.standings()
        assert standing.certificate == site.certificate.der
        actions = [entry.action for entry in await entries(hub.database)]
        assert actions == ["begin", "recognise"]


async def test_a_refusal_is_noted_anew_after_a_day_and_after_the_cause_went_away(
    tmp_path: Path, database: Database, clock: FrozenClock
) -> None:
    hub = await open_hub(tmp_path, database, clock)
    given = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
    await hub.deny("dc-north", reason="stolen", by="anna")
    for _ in range(3):
        for _ in range(5):
            with pytest.raises(DeniedError):
                await hub.identify(given)
        clock.advance(timedelta(days=1, seconds=1))
    assert len([entry for entry in await entries(database) if entry.action == "refuse"]) == 3


async def test_made_up_sites_do_not_fill_the_audit(tmp_path: Path, database: Database, clock: FrozenClock) -> None:
    hub = await open_hub(tmp_path, database, clock)
    for number in range(30):
        with pytest.raises(DeniedError):
            await hub.enrol(str(Token.make(f"site-{number}", hub.authority.fingerprint)), make_request(make_key()))
    [entry] = [entry for entry in await entries(database) if entry.action == "refuse"]
    assert entry.target == "agents"


async def test_every_unit_of_the_hub_has_a_named_crash_point(tmp_path: Path, clock: FrozenClock) -> None:
    passed: set[str] = set()
    async with temporary_database(tmp_path, crash=passed.add) as database:
        hub = await open_hub(tmp_path, database, clock)
        given = await hub.enrol((await hub.invite("dc-north", by="anna")).token, make_request(make_key()))
        clock.advance(timedelta(days=20))
        await hub.renew(given)
        await database.write(lambda connection: identities.put(connection, Standing(site="dc-north")))
        await (await open_hub(tmp_path, database, clock)).identify(given)
        await hub.deny("dc-north", reason="stolen", by="anna")
        with pytest.raises(DeniedError):
            await hub.identify(given)
        await hub.allow("dc-north", reason="found", by="anna")
        await begin_anew(tmp_path, database, reason="new", by="anna", clock=clock)
    assert {point for point in passed if point.startswith("identity.")} == {
        f"{unit}.{moment}_commit" for unit in UNITS for moment in ("before", "after")
    }
