"""The gate of the control API: every route behind it, every caller resolved, every refusal said, audited and bounded."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from agent.control.access import (
    MOST_CALLERS,
    REPEATED_WITHIN_SECONDS,
    Credentials,
    Gate,
    StoreRegister,
    action_of,
    only_here,
)
from agent.control.client import ControlClient
from agent.control.schema import Caller
from agent.control.server import make_app
from agent.control.testing import NOW, WrittenDesk, WrittenRegister, open_gate, served
from state import audit, tokens
from state.model.clock import to_millis
from state.model.errors import DeniedError, InvariantError, StoreError
from state.model.estate import Estate
from state.model.people import RIGHTS, Action, Role, Standing, Subject
from state.testing import NOON, FrozenClock, temporary_database
from state.tokens import NewToken, Token

SITE = "dc-north"
ROUTES = {
    "GET /health": Action.HEALTH,
    "GET /metrics": Action.READ,
    "GET /openapi.json": Action.READ,
    "GET /v1/agent/drain": Action.READ,
    "GET /v1/agents": Action.READ,
    "GET /v1/agents/{site}": Action.READ,
    "GET /v1/audit": Action.READ,
    "GET /v1/audit/verdict": Action.READ,
    "GET /v1/caller": Action.READ,
    "GET /v1/dead-letters": Action.READ,
    "GET /v1/dead-letters/{number}": Action.READ_PAYLOADS,
    "GET /v1/events": Action.READ,
    "GET /v1/events/{event:path}": Action.READ_PAYLOADS,
    "GET /v1/flows": Action.READ,
    "GET /v1/in-doubt": Action.READ,
    "GET /v1/in-doubt/{delivery}": Action.READ_PAYLOADS,
    "GET /v1/lanes": Action.READ,
    "GET /v1/status": Action.READ,
    "GET /v1/tokens": Action.ADMINISTER,
    "GET /v1/trace": Action.READ,
    "POST /v1/agent/drain": Action.OPERATE,
    "POST /v1/agent/resume": Action.OPERATE,
    "POST /v1/agent/undrain": Action.OPERATE,
    "POST /v1/agents/{site}/adopt": Action.ADMINISTER,
    "POST /v1/agents/{site}/waive": Action.ADMINISTER,
    "POST /v1/agents/{site}/allow": Action.ADMINISTER,
    "POST /v1/agents/{site}/deny": Action.ADMINISTER,
    "POST /v1/agents/{site}/invite": Action.ADMINISTER,
    "POST /v1/audit/{site}/acknowledge": Action.ADMINISTER,
    "POST /v1/backups": Action.ADMINISTER,
    "POST /v1/estate/reload": Action.ENGINEER,
    "POST /v1/tokens": Action.ADMINISTER,
    "POST /v1/tokens/{name}/revoke": Action.ADMINISTER,
}
ONLY_HERE = {"POST /v1/agent/resume", "POST /v1/backups", "POST /v1/tokens"}
"""What nobody can ask of another site's agent through the hub."""

STRANGER = Credentials(user="mallory", uid=4242)
ADA = Credentials(user="abyron", uid=1001)


def an_estate(**site: object) -> Estate:
    """Ada is an operator by her account, and each role is somebody's of the same name."""
    people = {role.value: {"name": role.value, "roles": [{"role": role.value}]} for role in Role}
    ada = {"name": "Ada", "uids": {SITE: 1001}, "roles": [{"role": "operator", "sites": [SITE]}, {"role": "viewer"}]}
    return Estate.model_validate(
        {
            "settings": {
                "name": "acme",
                "environment": "test",
                "currency": "EUR",
                "people": {**people, "ada": ada},
            },
            "sites": {SITE: {"site": SITE, "systems": {"erp": {"connector": "http"}}, **site}},
            "flows": {},
        }
    )


def a_token(number: int, person: str = "ada", **changed: object) -> tuple[str, Token]:
    """The text of a token and the token: of a person, with every role, at every site."""
    text = tokens.write_token(bytes([number]) * tokens.ENTROPY_BYTES)
    given = {
        "id": number,
        "name": f"ci-{number}",
        "person": person,
        "roles": frozenset(Role),
        "sites": None,
        "created_at": to_millis(NOW - timedelta(days=1)),
        "created_by": "root",
        "expires_at": to_millis(NOW + timedelta(days=1)),
        "last_used_at": None,
        "revoked_at": None,
        "revoked_by": None,
        "revoke_reason": None,
    }
    return text, Token(**{**given, **changed})  # type: ignore[arg-type]


def by_header(text: str, user: str = "robot") -> Credentials:
    return Credentials(user=user, uid=4242, authorization=f"Bearer {text}")


class Rig:
    """A gate with a clock and a register that the test owns."""

    def __init__(self, estate: Estate | None = None) -> None:
        self.estate = estate or an_estate()
        self.clock = FrozenClock(NOW)
        self.register = WrittenRegister()
        self.gate = Gate(self.register, site=SITE, estate=lambda: self.estate, clock=self.clock, own_uid=77)

    def knows(self, *issued: tuple[str, Token]) -> None:
        self.register.tokens.update(issued)

    async def subject(self, credentials: Credentials, action: Action = Action.READ) -> Subject:
        return (await self.gate.admit(credentials, action, "GET /v1/status")).subject

    async def refusal(self, credentials: Credentials, action: Action = Action.READ) -> DeniedError:
        with pytest.raises(DeniedError) as refused:
            await self.gate.admit(credentials, action, "GET /v1/status")
        return refused.value


@pytest.fixture
def rig() -> Rig:
    return Rig()


# --- the routes ---------------------------------------------------------------------------------------------------


def routes_of(app: FastAPI) -> dict[str, Action]:
    """What each route does. Raises `InvariantError` for one that does not say."""
    return {
        f"{method} {getattr(route, 'path', route)}": action_of(route)
        for route in app.routes
        for method in sorted(getattr(route, "methods", {"ANY"}))
    }


def test_every_route_says_what_it_does() -> None:
    assert routes_of(make_app(WrittenDesk(), open_gate())) == ROUTES


def test_a_route_says_why_it_is_for_callers_at_its_own_agent() -> None:
    app = make_app(WrittenDesk(), open_gate())
    kept = {f"{method} {route.path}" for route in app.routes if only_here(route) for method in route.methods}  # type: ignore[attr-defined]
    assert kept == ONLY_HERE


async def test_a_route_that_does_not_say_is_found_and_is_refused_to_root_too() -> None:
    app = make_app(WrittenDesk(), open_gate())

    @app.get("/v1/secrets")
    async def secrets() -> str:
        raise AssertionError("it ran")

    async def asked_by_root(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"caller": Caller(pid=1, uid=0, gid=0, user="root")}}, receive, send)

    with pytest.raises(InvariantError, match="/v1/secrets does not say what it does"):
        routes_of(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=asked_by_root), base_url="http://agent") as http:
        assert (await http.get("/v1/status")).status_code == 200
        answer = await http.get("/v1/secrets")
    assert (answer.status_code, answer.json()["code"]) == (500, "no-action")


def test_the_api_says_of_each_call_what_it_takes() -> None:
    described = make_app(WrittenDesk(), open_gate()).openapi()["paths"]
    assert described["/v1/agent/resume"]["post"]["x-distctl-action"] == "operate"


@contextmanager
def asking(path: Path, text: str | None = None) -> Iterator[httpx.Client]:
    headers = {} if text is None else {"authorization": f"Bearer {text}"}
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://agent", headers=headers) as http:
        yield http


def a_target(route: str) -> tuple[str, str]:
    """A call of the route, with whatever it needs at least."""
    method, path = route.split()
    for name in ("{number}", "{event:path}", "{delivery}"):
        path = path.replace(name, "7")
    return method, path.replace("{name}", "ci").replace("{site}", "south")


@pytest.mark.parametrize("role", Role)
def test_every_route_is_open_to_the_roles_of_the_table_and_to_no_other(role: Role, tmp_path: Path) -> None:
    text, token = a_token(1, person=role.value)
    register = WrittenRegister(tokens={text: token})
    with (
        served(WrittenDesk(), tmp_path / "agent.sock", open_gate(an_estate(), register=register)) as path,
        asking(path, text) as http,
    ):
        for route, action in ROUTES.items():
            answer = http.request(*a_target(route))
            is_refused = answer.status_code == 403
            assert is_refused is (action is not Action.HEALTH and action not in RIGHTS[role]), route
            if is_refused:
                assert (answer.json()["exit_code"], answer.json()["code"]) == (4, "role")


def test_what_is_wrong_with_a_call_is_told_only_to_those_who_may_make_it(tmp_path: Path) -> None:
    text, token = a_token(1, person="viewer")
    register = WrittenRegister(tokens={text: token})
    with (
        served(WrittenDesk(), tmp_path / "agent.sock", open_gate(an_estate(), register=register)) as path,
        asking(path, text) as http,
    ):
        assert http.post("/v1/tokens", params={"expires": "soon"}).status_code == 403
        assert http.get("/v1/events", params={"limit": 0}).status_code == 422


@pytest.mark.parametrize("route", [route for route in ROUTES if route.startswith("POST")])
def test_a_refusal_does_not_wait_for_a_body(route: str, tmp_path: Path) -> None:
    method, target = a_target(route)
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nContent-Length: 999999999\r\n\r\n"
    with (
        served(WrittenDesk(), tmp_path / "agent.sock", open_gate(an_estate())) as path,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(head.encode() + b"{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("person", [None, "bo"])
async def test_a_token_is_of_whoever_makes_it_unless_it_is_made_for_somebody(person: str | None) -> None:
    estate = an_estate()
    admin = {"name": "Ada", "uids": {SITE: 1001}, "roles": [{"role": "admin"}, {"role": "engineer"}]}
    people = {"ada": admin, "bo": {"name": "Bo", "roles": [{"role": "engineer"}]}}
    settings = {**estate.settings.model_dump(), "people": people}
    app = make_app(WrittenDesk(), open_gate(Estate.model_validate({**estate.model_dump(), "settings": settings})))

    async def made_by(uid: int, user: str) -> dict[str, Any]:
        async def asked(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": {"caller": Caller(pid=1, uid=uid, gid=uid, user=user)}}, receive, send)

        wish = {"name": "ci", "role": "engineer", "expires": "90d", **({"person": person} if person else {})}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=asked), base_url="http://agent") as http:
            answer: dict[str, Any] = (await http.post("/v1/tokens", params=wish)).json()
        return answer

    made = await made_by(1001, "adab")
    assert (made["person"], made["created_by"]) == (person or "ada", "ada")
    by_root = await made_by(0, "root")
    assert by_root.get("person") == person
    assert by_root.get("code") == (None if person else "no-person")


def test_two_headers_are_no_token(tmp_path: Path) -> None:
    text, token = a_token(1, person="admin")
    gate = open_gate(an_estate(), register=WrittenRegister(tokens={text: token}))
    with served(WrittenDesk(), tmp_path / "agent.sock", gate) as path, asking(path) as http:
        shown = [("authorization", f"Bearer {text}")]
        assert http.get("/v1/status", headers=shown).status_code == 200
        assert http.get("/v1/status", headers=shown * 2).json()["code"] == "token-garbled"


# --- accounts -----------------------------------------------------------------------------------------------------


async def test_an_account_is_its_person(rig: Rig) -> None:
    subject = await rig.subject(ADA, Action.OPERATE)
    assert (subject.actor, subject.standing) == ("ada", Standing.PERSON)


@pytest.mark.parametrize("uid", [0, 77])
async def test_root_and_the_agents_own_account_do_everything_but_approve(rig: Rig, uid: int) -> None:
    house = Credentials(user="somebody", uid=uid)
    for action in set(Action) - {Action.APPROVE}:
        assert (await rig.subject(house, action)).actor == "somebody"
    assert (await rig.refusal(house, Action.APPROVE)).message.startswith("somebody approves nothing")


async def test_a_stranger_sees_the_health_and_is_told_how_to_become_somebody(rig: Rig) -> None:
    assert (await rig.subject(STRANGER, Action.HEALTH)).standing is Standing.STRANGER
    refused = await rig.refusal(STRANGER)
    assert refused.message == "mallory is nobody whom the estate names, and may not read at dc-north"
    assert refused.hint.startswith("it takes the role viewer or operator or approver or engineer or admin at dc-north")
    assert "ada" not in str(refused)


async def test_without_people_whoever_gets_in_by_an_account_does_everything_but_approve() -> None:
    rig = Rig(an_estate().model_copy(update={"settings": NOBODY}))
    assert (await rig.subject(STRANGER, Action.ADMINISTER)).standing is Standing.HOUSE
    assert (await rig.refusal(STRANGER, Action.APPROVE)).code == "needs-a-person"
    from_elsewhere = Credentials(user="192.0.2.7")
    assert (await rig.refusal(from_elsewhere)).code == "stranger"


async def test_the_estate_that_is_in_force_now_is_what_counts(rig: Rig) -> None:
    assert (await rig.subject(ADA, Action.OPERATE)).actor == "ada"
    rig.estate = an_estate(forbids=["operate"])
    assert (await rig.refusal(ADA, Action.OPERATE)).code == "site-forbids"
    assert (await rig.refusal(Credentials(user="root", uid=0), Action.OPERATE)).code == "site-forbids"


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_a_token_is_its_person_whatever_account_shows_it(rig: Rig) -> None:
    text, token = a_token(1)
    rig.knows((text, token))
    subject = await rig.subject(by_header(text), Action.OPERATE)
    assert (subject.actor, subject.standing) == ("ada/ci-1", Standing.PERSON)
    assert (await rig.refusal(by_header(text), Action.ADMINISTER)).code == "role"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer distctl_short", "token-garbled"),
        ("Bearer " + "a" * 51, "token-garbled"),
        ("Bearer", "token-garbled"),
        ("", "token-garbled"),
        ("Basic YWRhOmFkYQ==", "token-garbled"),
        (f"Bearer distctl_{'é' * 43}", "token-garbled"),
        (f"Bearer distctl_{'a' * 43} more", "token-garbled"),
        (f"Bearer distctl_{'a' * 43}\n", "token-garbled"),
        (f"Bearer distctl_{'a' * 43}", "token-unknown"),
    ],
)
@pytest.mark.parametrize("uid", [0, 1001, 4242, None])
async def test_a_token_that_is_wrong_is_not_made_good_by_the_account(
    rig: Rig, header: str, code: str, uid: int | None
) -> None:
    credentials = Credentials(user="somebody", uid=uid, authorization=header)
    assert (await rig.refusal(credentials)).code == code
    [refusal] = rig.register.refusals
    assert (refusal.code, refusal.uid) == (code, uid)
    assert "aaaa" not in f"{refusal}"


async def test_a_token_that_held_says_until_when(rig: Rig) -> None:
    expired, revoked, orphaned = (
        a_token(1, expires_at=to_millis(NOW)),
        a_token(2, revoked_at=to_millis(NOW), revoked_by="root", revoke_reason="secret gossip"),
        a_token(3, person="bo"),
    )
    rig.knows(expired, revoked, orphaned)
    assert [(await rig.refusal(by_header(text))).message for text, _ in (expired, revoked, orphaned)] == [
        "the token ci-1 held until 2026-03-02 09:00:12Z",
        "the token ci-2 was revoked at 2026-03-02 09:00:12Z",
        "the token ci-3 is of bo, whom the estate no longer names",
    ]
    assert [refusal.actor for refusal in rig.register.refusals] == ["ada/ci-1", "ada/ci-2", "bo/ci-3"]
    assert "gossip" not in f"{rig.register.refusals}"
    assert rig.register.used == []


async def test_a_token_holds_to_the_last_millisecond(rig: Rig) -> None:
    text, token = a_token(1)
    rig.knows((text, token))
    rig.clock.advance(timedelta(days=1) - timedelta(milliseconds=1))
    assert (await rig.subject(by_header(text))).name == "ada"
    rig.clock.advance(timedelta(milliseconds=1))
    assert (await rig.refusal(by_header(text))).code == "token-expired"


@pytest.mark.parametrize(("ago", "is_noted"), [(59_999, False), (60_000, True)])
async def test_a_use_is_noted_once_a_minute_and_costs_no_write_otherwise(rig: Rig, ago: int, is_noted: bool) -> None:
    text, token = a_token(1, last_used_at=to_millis(NOW) - ago)
    rig.knows((text, token))
    await rig.subject(by_header(text))
    assert rig.register.used == ([("ci-1", NOW)] if is_noted else [])


async def test_a_store_that_does_not_answer_admits_no_token_and_still_tells_the_health(rig: Rig) -> None:
    text, token = a_token(1)
    rig.knows((text, token))
    rig.register.failure = StoreError("locked", code="store-locked")
    with pytest.raises(StoreError):
        await rig.subject(by_header(text))
    assert (await rig.subject(by_header("nonsense"), Action.HEALTH)).name == "robot"


async def test_a_use_that_cannot_be_noted_does_not_stop_the_call(rig: Rig) -> None:
    text, token = a_token(1)

    class FullRegister(WrittenRegister):
        async def note_use(self, token: Token, *, now: int) -> None:
            raise StoreError("full", code="store-full")

    gate = Gate(FullRegister(tokens={text: token}), site=SITE, estate=lambda: rig.estate, clock=rig.clock, own_uid=77)
    assert (await gate.admit(by_header(text), Action.READ, "GET /v1/status")).subject.name == "ada"


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_the_same_refusal_is_written_once_a_minute_and_counted(rig: Rig) -> None:
    for _ in range(20):
        await rig.refusal(STRANGER)
    assert [refusal.repeated for refusal in rig.register.refusals] == [0]
    rig.clock.advance(REPEATED_WITHIN_SECONDS - 0.001)
    await rig.refusal(STRANGER)
    assert len(rig.register.refusals) == 1
    rig.clock.advance(0.001)
    await rig.refusal(STRANGER)
    assert [refusal.repeated for refusal in rig.register.refusals] == [0, 20]
    await rig.gate.close()
    assert [refusal.repeated for refusal in rig.register.refusals] == [0, 20, 1]


async def test_a_count_is_written_by_the_next_call_of_anybody(rig: Rig) -> None:
    await rig.refusal(STRANGER)
    await rig.refusal(STRANGER)
    rig.clock.advance(REPEATED_WITHIN_SECONDS)
    await rig.subject(ADA)
    assert [(refusal.actor, refusal.repeated) for refusal in rig.register.refusals] == [("mallory", 0), ("mallory", 1)]


async def test_another_caller_and_another_refusal_are_written_for_themselves(rig: Rig) -> None:
    await rig.refusal(STRANGER)
    await rig.refusal(Credentials(user="eve", uid=4243))
    await rig.refusal(STRANGER, Action.OPERATE)
    await rig.refusal(by_header("nonsense", user="mallory"))
    assert len(rig.register.refusals) == 4


async def test_ever_new_callers_do_not_fill_the_audit(rig: Rig) -> None:
    for number in range(MOST_CALLERS + 50):
        await rig.refusal(Credentials(user=f"192.0.2.{number}"))
    assert len(rig.register.refusals) == MOST_CALLERS + 1
    await rig.gate.close()
    assert rig.register.refusals[-1].repeated == 49


async def test_a_refusal_that_cannot_be_audited_is_a_refusal_all_the_same(rig: Rig) -> None:
    rig.register.failure = StoreError("full", code="store-full")
    assert (await rig.refusal(STRANGER)).code == "stranger"


# --- in the store -------------------------------------------------------------------------------------------------


async def test_a_refusal_is_in_the_audit_and_a_use_in_the_token(tmp_path: Path) -> None:
    clock, estate = FrozenClock(NOON), an_estate()
    async with temporary_database(tmp_path) as database:
        gate = Gate(StoreRegister(database), site=SITE, estate=lambda: estate, clock=clock, own_uid=77)
        text = tokens.write_token(bytes(32))
        new = NewToken(
            name="ci",
            hash=tokens.hash_of(text),
            person="ada",
            roles=frozenset({Role.VIEWER}),
            sites=None,
            created_at=to_millis(NOON),
            created_by="root",
            expires_at=to_millis(NOON + timedelta(days=1)),
        )
        await database.write(lambda connection: tokens.add(connection, new))

        async def last_use() -> object:
            token = await database.read(partial(tokens.find, text=text))
            return token and token.last_used_at

        for seconds, noted in ((0, 0), (59, 0), (1, 60), (30, 60)):
            clock.advance(seconds)
            await gate.admit(by_header(text), Action.READ, "GET /v1/status")
            assert await last_use() == to_millis(NOON) + noted * 1000

        with pytest.raises(DeniedError, match="which ada has and this token has not"):
            await gate.admit(by_header(text), Action.OPERATE, "POST /v1/agent/resume")
        [entry] = await database.read(audit.entries)
        assert (entry.actor, entry.action, entry.target) == ("ada/ci", "refuse", "POST /v1/agent/resume")
        assert entry.reason == "ada by the token ci (viewer) may not operate at dc-north"
        assert entry.details == {"action": "operate", "site": SITE, "code": "role", "repeated": 0, "uid": 4242}
        assert await database.read(audit.verify) is None
        for who, found in (("ada", 1), ("ci", 1), ("ada/ci", 1), ("c", 0), ("", 0), ("root", 0)):
            assert len(await database.read(partial(audit.entries, actor=who))) == found, who


# --- the client ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    text, token = a_token(1)
    gate = open_gate(an_estate(), register=WrittenRegister(tokens={text: token}))
    with served(WrittenDesk(), tmp_path / "agent.sock", gate) as path:
        yield path


def test_a_client_with_a_token_asks_as_its_person(path: Path) -> None:
    text, _ = a_token(1)
    caller = ControlClient(path, token=text).caller()
    assert (caller.actor, caller.roles, caller.uid) == ("ada/ci-1", ["operator", "viewer"], os.geteuid())
    with pytest.raises(DeniedError, match="it takes the role engineer at dc-north"):
        ControlClient(path, token=text).reload()


@pytest.mark.parametrize(
    "ask", [ControlClient.status, ControlClient.flows, ControlClient.tokens, ControlClient.metrics]
)
def test_a_client_with_a_wrong_token_is_denied(path: Path, ask: Callable[[ControlClient], object]) -> None:
    with pytest.raises(DeniedError, match="no such token") as refused:
        ask(ControlClient(path, token=f"distctl_{'a' * 43}"))
    assert refused.value.exit_code == 4
    assert ControlClient(path, token="nonsense").health().ok


@pytest.mark.parametrize("text", ["", " ", "a\nb", "é", "a\x00"])
def test_a_client_does_not_send_what_no_header_holds(path: Path, text: str) -> None:
    with pytest.raises(DeniedError, match="no token"):
        ControlClient(path, token=text)


NOBODY = an_estate().settings.model_validate({"name": "acme", "environment": "test", "currency": "EUR"})
