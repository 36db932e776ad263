"""A call from the hub's API into a site's: decided at both ends, by the same routes, as whom the hub vouches for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from agent.control.access import AllowedToHub, Gate
from agent.control.afar import LONGEST_SECONDS, answer_in_process
from agent.control.client import ControlClient
from agent.control.schema import SITE_HEADER, WITHIN_HEADER, Caller, EventRow
from agent.control.server import make_app
from agent.control.testing import NOW, WrittenDesk, WrittenRegister, open_gate, served
from agent.errand import LARGEST_BODY, USUAL_SECONDS, Answered, Question
from state.model.errors import ConfigError, DeniedError, InDoubtError, NotConnectedError, NotFoundError
from state.model.estate import Estate
from state.model.people import Action, Role, Subject, Vouched, decide
from state.model.people import Scope as TokenScope
from state.testing import FrozenClock
from tests.daemon.test_access import ONLY_HERE, ROUTES, a_target, a_token

HUB, SITE_NAME = "hq", "dc-north"
PEOPLE: dict[str, Any] = {
    "ada": {
        "name": "Ada",
        "uids": {HUB: 1001},
        "roles": [{"role": "operator", "sites": [HUB, "south"]}, {"role": "viewer"}],
    },
    "bo": {"name": "Bo", "uids": {HUB: 1002}, "roles": [{"role": role} for role in ("operator", "engineer", "admin")]},
}


def an_estate(people: object = PEOPLE, *, forbids: Collection[str] = ()) -> Estate:
    return Estate.model_validate(
        {
            "settings": {"name": "acme", "environment": "test", "currency": "EUR", "people": people},
            "sites": {
                site: {
                    "site": site,
                    "systems": {"erp": {"connector": "http"}},
                    "forbids": list(forbids) if site == SITE_NAME else [],
                }
                for site in (HUB, SITE_NAME, "south")
            },
            "flows": {},
        }
    )


class Allowed:
    """An allow-list as the test wants it."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def require_commands(self) -> None:
        self._require("commands")

    def require_payloads(self) -> None:
        self._require("payloads")

    def _require(self, what: str) -> None:
        if what not in self.allowed:
            raise DeniedError(f"nobody at the hub has {what} here", hint="allow.yaml", code="not-allowed-here")


class Site:
    """The API of the site, reached without a link; notes what it was asked."""

    def __init__(self) -> None:
        self.estate = an_estate()
        self.allowed: AllowedToHub | None = None
        self.desk = WrittenDesk()
        self.register = WrittenRegister()
        self.asked: list[Question] = []
        self.failure: Exception | None = None
        gate = Gate(
            self.register,
            site=SITE_NAME,
            estate=lambda: self.estate,
            clock=FrozenClock(NOW),
            own_uid=77,
            allowed_to_hub=lambda: self.allowed or Allowed("commands", "payloads"),
        )
        self.app = make_app(self.desk, gate)

    async def ask(self, site: str, question: Question) -> Answered:
        assert site == SITE_NAME
        self.asked.append(question)
        if self.failure:
            raise self.failure
        return await answer_in_process(self.app, question, hub=HUB)


class Both:
    """A hub's API with a site behind it."""

    def __init__(self) -> None:
        self.site = Site()
        self.estate = an_estate()
        self.register = WrittenRegister()
        self.desk = WrittenDesk()
        gate = Gate(self.register, site=HUB, estate=lambda: self.estate, clock=FrozenClock(NOW), own_uid=77)
        self.app: FastAPI = make_app(self.desk, gate, self.site)

    async def call(
        self,
        target: str,
        *,
        method: str = "GET",
        uid: int = 1002,
        site: str = SITE_NAME,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        async def by(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "state": {"caller": Caller(pid=1, uid=uid, gid=1, user=f"u{uid}")}}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=by), base_url="http://agent") as http:
            return await http.request(method, target, headers={SITE_HEADER: site, **(headers or {})})


@pytest.fixture
def both() -> Both:
    return Both()


DRAIN = "/v1/agent/drain?reason=it+moves"


async def test_what_the_site_answers_is_the_answer(both: Both) -> None:
    own = await both.call("/v1/status", site=HUB)
    far = await both.call("/v1/status")
    assert (own.status_code, far.status_code) == (200, 200)
    assert both.site.asked[0].target == "/v1/status"
    assert far.json() == (await both.site.desk.status()).model_dump(mode="json")
    missing = await both.call("/v1/trace?key=a%2Fb%20c")
    assert (missing.status_code, missing.json()["exit_code"]) == (404, 3)
    assert missing.json()["detail"] == "nothing is known of a/b c"
    assert (await both.call("/v1/events?limit=0")).status_code == 422


async def test_the_site_knows_who_it_was_and_that_they_came_through_the_hub(both: Both) -> None:
    assert (await both.call(DRAIN, method="POST")).status_code == 200
    assert both.site.desk.agent_changes == [("draining", "dc-north", "bo via hq", "it moves")]
    assert both.desk.agent_changes == []
    me = (await both.call("/v1/caller")).json()
    assert (me["actor"], me["roles"], me["uid"]) == ("bo via hq", ["admin", "engineer", "operator"], -1)


async def test_a_role_at_one_site_is_none_at_another(both: Both) -> None:
    assert (await both.call("/v1/status", uid=1001)).status_code == 200
    refused = await both.call(DRAIN, method="POST", uid=1001)
    assert (refused.status_code, refused.json()["code"]) == (403, "role")
    assert refused.json()["detail"] == "ada (viewer) may not operate at dc-north"
    assert len(both.site.asked) == 1, "the hub asked nobody"
    assert [(one.actor, one.site) for one in both.register.refusals] == [("ada", SITE_NAME)]


async def test_the_site_decides_again_by_its_own_estate(both: Both) -> None:
    both.site.estate = an_estate({**PEOPLE, "bo": {"name": "Bo", "roles": [{"role": "viewer"}]}})
    refused = await both.call(DRAIN, method="POST")
    assert (refused.status_code, refused.json()["detail"]) == (403, "bo (viewer) may not operate at dc-north")
    assert [one.actor for one in both.site.register.refusals] == ["bo via hq"]
    both.site.estate = an_estate({"eve": {"name": "Eve", "roles": [{"role": "admin"}]}})
    assert (await both.call("/v1/status")).json()["code"] == "stranger"
    both.site.estate = an_estate(forbids=["operate"])
    assert (await both.call(DRAIN, method="POST")).json()["code"] == "site-forbids"


@pytest.mark.parametrize("uid", [0, 77, 4242])
async def test_root_and_strangers_at_the_hub_are_nobody_at_a_site(both: Both, uid: int) -> None:
    assert (await both.call("/v1/status", uid=uid)).json()["code"] == "stranger"
    assert both.site.asked == []


async def test_in_an_estate_without_people_whoever_asks_at_the_hub_does_everything_but_approve(both: Both) -> None:
    both.estate = both.site.estate = an_estate({})
    assert (await both.call(DRAIN, method="POST", uid=4242)).status_code == 200
    assert both.site.desk.agent_changes[0][2] == "u4242 via hq"


def test_a_token_is_never_more_elsewhere_than_it_was_made_for() -> None:
    directory = an_estate().settings.directory

    def bo(*roles: Role, sites: frozenset[str] | None = None) -> Subject:
        scope = TokenScope(token="ci", roles=frozenset(roles), sites=sites, issued_by="root")
        return directory.behind_another_agent(Vouched(name="bo", person="bo", scope=scope), via=HUB)

    assert bo(Role.OPERATOR).actor == "bo/ci via hq"
    assert decide(bo(Role.OPERATOR), Action.OPERATE, SITE_NAME).is_allowed
    assert not decide(bo(Role.VIEWER), Action.OPERATE, SITE_NAME).is_allowed
    assert not decide(bo(Role.OPERATOR, sites=frozenset({HUB})), Action.READ, SITE_NAME).is_allowed
    nobody = an_estate({}).settings.directory.behind_another_agent(bo(Role.VIEWER).vouched, via=HUB)
    assert not decide(nobody, Action.READ, SITE_NAME).is_allowed


@pytest.mark.parametrize("target", ["/v1/events/../tokens", "/v1/events/x/../../agents", "/v1/events/./x"])
async def test_what_the_hub_decided_about_is_what_the_site_is_asked(both: Both, target: str) -> None:
    async def unshortened(scope: Scope, receive: Receive, send: Send) -> None:
        caller = {"caller": Caller(pid=1, uid=1002, gid=1, user="u1002")}
        await both.app({**scope, "path": target, "raw_path": target.encode(), "state": caller}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=unshortened), base_url="http://agent") as http:
        refused = await http.get("/", headers={SITE_HEADER: SITE_NAME})
    assert (refused.status_code, refused.json()["code"], both.site.asked) == (400, "no-such-call", [])


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_brings_none(tmp_path: Path, status: int) -> None:
    class Lying(Site):
        async def ask(self, site: str, question: Question) -> Answered:
            return Answered(status=status, type="", body=b"HTTP/1.1 200 OK")

    gate = Gate(WrittenRegister(), site=HUB, estate=lambda: an_estate({}), clock=FrozenClock(NOW))
    with (
        served(WrittenDesk(), tmp_path / "socket", gate, Lying()) as path,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as http,
    ):
        answer = http.get("/v1/status", headers={SITE_HEADER: SITE_NAME})
        assert (answer.status_code, answer.content) == (status, b"")
        assert http.get("/v1/status").status_code == 200, "the connection goes on"


async def test_a_token_of_the_hub_is_passed_on_with_its_scope_and_never_with_its_text(both: Both) -> None:
    text, token = a_token(1, person="bo", roles=frozenset({Role.OPERATOR}))
    both.register.tokens[text] = token
    assert (await both.call(DRAIN, method="POST", headers={"authorization": f"Bearer {text}"})).status_code == 200
    assert both.site.desk.agent_changes[0][2] == "bo/ci-1 via hq"
    assert text not in repr(both.site.asked)
    assert both.site.asked[0].caller == Vouched(name="bo", person="bo", scope=token.scope)


@pytest.mark.parametrize(
    ("allowed", "target", "method", "may"),
    [
        ((), "/v1/status", "GET", True),
        ((), "/health", "GET", True),
        ((), DRAIN, "POST", False),
        (("commands",), DRAIN, "POST", True),
        (("payloads",), DRAIN, "POST", False),
        (("commands",), "/v1/events/7", "GET", False),
    ],
)
async def test_the_site_says_what_its_hub_may_do(
    both: Both, allowed: tuple[str, ...], target: str, method: str, may: bool
) -> None:
    both.site.allowed = Allowed(*allowed)
    answer = await both.call(target, method=method)
    assert (answer.status_code != 403) is may
    if not may:
        problem = answer.json()
        assert (problem["exit_code"], problem["hint"]) == (4, "allow.yaml")
        assert problem["detail"].startswith("dc-north refuses: nobody at the hub has")
        assert both.site.register.refusals[0].code == "not-allowed-here"


@pytest.mark.parametrize("route", sorted(ROUTES))
async def test_every_route_goes_through_but_those_that_say_why_not(both: Both, route: str) -> None:
    both.estate = both.site.estate = an_estate({})
    method, target = a_target(route)
    answer = await both.call(target, method=method)
    is_kept = route in ONLY_HERE
    assert (answer.status_code == 400 and answer.json()["code"] == "only-there") is is_kept
    assert len(both.site.asked) == (0 if is_kept else 1)
    if is_kept:  # nor does a site do it for a hub that asks all the same
        question = Question(method=method, target=target, caller=Vouched(name="u"), seconds=1)
        asked = await both.site.ask(SITE_NAME, question)
        assert (asked.status, b"only-there" in asked.body) == (400, True)


async def test_what_the_link_comes_to_is_the_callers_exit_code(both: Both) -> None:
    for failure, exit_code in ((NotConnectedError("x"), 7), (InDoubtError("x"), 10), (NotFoundError("x"), 3)):
        both.site.failure = failure
        assert (await both.call("/health")).json()["exit_code"] == exit_code


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", USUAL_SECONDS), ("120.5", 120.5), ("-1", USUAL_SECONDS), ("1e9", USUAL_SECONDS), ("999999", LONGEST_SECONDS)],
)
async def test_a_caller_says_how_long_it_waits(both: Both, said: str, seconds: float) -> None:
    await both.call("/v1/status", headers={WITHIN_HEADER: said})
    assert both.site.asked[0].seconds == seconds


async def test_an_answer_that_is_too_large_for_a_link_is_none(both: Both) -> None:
    row = EventRow(
        seq=1, id="a" * 32, time=NOW, recorded_at=NOW, flow="f", contract="c", op="o", subject="s", source="n/p"
    )
    both.site.desk.event_rows = [row.model_copy(update={"subject": "x" * (LARGEST_BODY + 1)})]
    answer = await both.call("/v1/events")
    assert (answer.status_code, answer.json()["code"], answer.json()["exit_code"]) == (413, "too-large", 1)


# --- the client ---------------------------------------------------------------------------------------------------


class Silent:
    """Other sites that say what the test wants."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    async def ask(self, site: str, question: Question) -> Answered:
        raise self.failure


@contextmanager
def a_hub(folder: Path, elsewhere: Any = None) -> Any:
    with served(WrittenDesk(), folder / "agent.sock", open_gate(), elsewhere) as path:
        yield path


def test_a_client_that_names_another_site_is_told_what_became_of_it(tmp_path: Path) -> None:
    unreachable = NotConnectedError("the agent of south is not connected", code="site-offline")
    with a_hub(tmp_path, Silent(unreachable)) as path:
        client = ControlClient(path, site="south")
        for ask in (client.status, client.health, lambda: client.begin_drain(reason="x")):
            with pytest.raises(Exception, match="not connected") as refused:
                ask()
            assert refused.value.exit_code == 7  # type: ignore[attr-defined]
        assert ControlClient(path, site="dc-north").status().site == "dc-north"


def test_an_agent_that_reaches_no_other_refuses_a_call_for_one(tmp_path: Path) -> None:
    with a_hub(tmp_path) as path:
        for site in ("south", "sü\nd"):
            with pytest.raises(ConfigError, match="is that of site dc-north, not of"):
                ControlClient(path, site=site).begin_drain(reason="x")
