"""Which conditions hold: what needs a person is named, and what does not is left out."""

from datetime import UTC, datetime

import pytest

from agent.control.conditions import conditions_of
from agent.control.schema import AgentRow, AuditFinding, DrainView, LaneRow
from console.cli.status import CONDITIONS
from state.model.ids import EstateHash
from state.unapplied import Strange

NOON = datetime(2026, 3, 2, 9, tzinfo=UTC)
QUIET = LaneRow(flow="stock", target="dc/erp", tier=2, order="strict", state="open", breaker="closed")


STRANGE = Strange(site="north", estate=EstateHash("ab" * 16), count=3)

CUT = AuditFinding(
    audit_of="dc", kind="cut", text="it was cut back", to_do="find out", noticed_at="2026-03-02T09:00:00Z"
)


DRAINING = DrainView(state="draining", since="2026-03-02T09:00:00Z", reason="it moves")


def names(
    *lanes: LaneRow,
    letters: int = 0,
    troubles: tuple[str, ...] = (),
    audits: tuple[AuditFinding, ...] = (),
    drain: DrainView | None = None,
    strange: tuple[Strange, ...] = (),
    agents: tuple[AgentRow, ...] = (),
) -> list[tuple[str, int]]:
    found = conditions_of(
        lanes,
        open_dead_letters=letters,
        troubles=troubles,
        audits=audits,
        drain=drain,
        strange=strange,
        agents=agents,
    )
    return [(condition.name, condition.count) for condition in found]


def test_all_quiet_is_no_condition() -> None:
    assert names(QUIET) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"breaker": "open"}, ("unreachable", 1)),
        ({"state": "held"}, ("held", 1)),
        ({"state": "frozen"}, ("frozen", 1)),
        ({"pending": 2, "delayed": 3}, ("backlog", 5)),
        ({"pending": 2, "waiting_behind": 2}, ("waiting-behind", 2)),
    ],
)
def test_a_lane_that_does_not_flow_is_a_condition(changed: dict[str, object], expected: tuple[str, int]) -> None:
    assert names(QUIET.model_copy(update=changed)) == [expected]


def test_what_is_in_doubt_is_on_its_way_too() -> None:
    assert names(QUIET.model_copy(update={"in_doubt": 1})) == [("in-doubt", 1), ("backlog", 1)]


def test_one_target_of_two_lanes_is_unreachable_once() -> None:
    lane = QUIET.model_copy(update={"breaker": "open"})
    assert names(lane, lane.model_copy(update={"flow": "orders"})) == [("unreachable", 1)]


def test_a_shadow_lane_needs_nobody() -> None:
    shadow = {"shadow_of": "dc/erp", "breaker": "open", "pending": 9, "in_doubt": 1, "state": "held"}
    assert names(QUIET.model_copy(update=shadow)) == []


def test_dead_letters_and_troubles_of_the_agent_come_first_or_near_it() -> None:
    busy = QUIET.model_copy(update={"in_doubt": 1})
    found = names(busy, letters=4, troubles=("the estate is refused",))
    assert [name for name, _ in found] == ["trouble", "in-doubt", "parked", "backlog"]


@pytest.mark.parametrize(("count", "told"), [(1, "1 dead letter: "), (1200, "1,200 dead letters: ")])
def test_dead_letters_go_by_their_own_name_since_they_are_more_than_parked_deliveries(count: int, told: str) -> None:
    [condition] = conditions_of([], open_dead_letters=count, troubles=[])
    assert condition.text == f"{told}distctl dlq list"


def test_events_that_wait_for_an_estate_are_told_by_site_and_estate() -> None:
    [condition] = conditions_of([], open_dead_letters=0, troubles=[], strange=[STRANGE])
    assert condition.text == "events wait for an estate that was never in force here: 3 of north for estate abababab"


def test_an_agent_that_drains_says_since_when_and_what_ends_it() -> None:
    assert names(QUIET, drain=DrainView(state="open")) == []
    [condition] = conditions_of([], open_dead_letters=0, troubles=[], drain=DRAINING)
    assert condition.text == (
        "draining, and nothing is taken in since 2026-03-02 09:00:00Z (it moves): distctl agents undrain SITE --reason ..."
    )


def site(name: str, state: str, heard: str) -> AgentRow:
    return AgentRow(agent=name, state=state, reason="", to_do="", epoch=1, heard_at=heard or None, waiting=0)


def test_a_hub_names_the_sites_that_are_kept_out_or_silent_and_no_others() -> None:
    agents = [
        site("north", "fenced", "2026-03-02T09:00:00Z"),
        site("south", "silent", "2026-03-02T08:58:59Z"),
        site("east", "open", "2026-03-02T08:59:30Z"),
        site("west", "denied", "2026-03-02T01:00:00Z"),
        site("web", "open", "2026-03-02T08:59:30Z").model_copy(update={"refused_at": NOON}),
    ]
    [condition] = conditions_of([], open_dead_letters=0, troubles=[], agents=agents)
    assert (condition.name, condition.count) == ("sites", 3)
    assert condition.text == (
        "north is fenced; web has a store that is refused; south is silent since 2026-03-02 08:58:59Z: distctl agents list"
    )


def test_a_hub_names_a_few_of_many_silent_sites_and_first_those_that_wait_for_a_person() -> None:
    agents = [site(f"dc-{number:03}", "silent", "2026-03-02T09:00:00Z") for number in range(200)]
    [condition] = conditions_of([], open_dead_letters=0, troubles=[], agents=[*agents, site("west", "fenced", "")])
    assert condition.count == 201
    assert condition.text.startswith("west is fenced; dc-000 is silent")
    assert condition.text.endswith(
        "; dc-003 is silent since 2026-03-02 09:00:00Z; 196 others as well: distctl agents list"
    )


def test_distctl_can_fail_on_every_condition_there_is() -> None:
    worst = QUIET.model_copy(update={"breaker": "open", "in_doubt": 1, "state": "held"})
    worst = worst.model_copy(update={"pending": 1, "waiting_behind": 1})
    frozen = QUIET.model_copy(update={"state": "frozen"})
    found = names(
        worst,
        frozen,
        letters=1,
        troubles=("the estate is refused",),
        audits=(CUT,),
        drain=DRAINING,
        strange=(STRANGE,),
        agents=(site("north", "fenced", "2026-03-02T09:00:00Z"),),
    )
    assert {name for name, _ in found} == set(CONDITIONS)
