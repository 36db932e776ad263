"""The rights of people: every cell of the table, and what stands outside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from state.model.estate import Estate, EstateSettings
from state.model.people import (
    ALLOWED,
    RIGHTS,
    Action,
    Grant,
    People,
    Person,
    Role,
    Scope,
    Standing,
    Subject,
    decide,
    may_issue,
    roles_for,
)

TABLE = """
           health  read  read-payloads  operate  approve  engineer  administer
viewer     yes     yes   -              -        -        -         -
operator   yes     yes   yes            yes      -        -         -
approver   yes     yes   yes            -        yes      -         -
engineer   yes     yes   yes            -        -        yes       -
admin      yes     yes   -              -        -        -         yes
house      yes     yes   yes            yes      -        yes       yes
stranger   yes     -     -              -        -        -         -
"""
HEADING, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = [
    (who, Action(action), cell == "yes") for who, *cells in ROWS for action, cell in zip(HEADING, cells, strict=True)
]


def a_person(*roles: Role, sites: frozenset[str] | None = None) -> Person:
    return Person(id="ada", name="Ada Byron", grants=tuple(Grant(role=role, sites=sites) for role in roles))


def a_subject(who: str) -> Subject:
    if who in set(Role):
        return Subject(name="ada", standing=Standing.PERSON, person=a_person(Role(who)))
    return Subject(name="root", standing=Standing(who))


def a_scope(*roles: Role, sites: frozenset[str] | None = None) -> Scope:
    return Scope(token="ci", roles=frozenset(roles), sites=sites, issued_by="bo")


def by_token(person: Person, scope: Scope) -> Subject:
    subject = People([person]).behind_token(person.id, scope)
    assert subject is not None
    return subject


def test_the_table_of_this_test_has_every_cell() -> None:
    assert {(who, action) for who, action, _ in CELLS} == {
        (who, action) for who in (*Role, Standing.HOUSE, Standing.STRANGER) for action in Action
    }
    assert set(RIGHTS) == set(Role)


@pytest.mark.parametrize(("who", "action", "is_allowed"), CELLS)
def test_every_cell_of_the_table(who: str, action: Action, is_allowed: bool) -> None:
    decision = decide(a_subject(who), action, "dc-north")
    assert decision.is_allowed is is_allowed
    assert bool(decision.message) is bool(decision.hint) is bool(decision.code) is not is_allowed


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.HEALTH])
def test_a_refusal_says_who_what_where_and_which_roles_could(action: Action) -> None:
    nobody = Subject(name="ada", standing=Standing.PERSON, person=a_person())
    decision = decide(nobody, action, "dc-north")
    assert decision.message.startswith("ada ")
    assert decision.message.endswith(" at dc-north")
    assert all(role in decision.hint for role in roles_for(action))


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("who", [*Role, Standing.HOUSE])
def test_what_a_site_forbids_is_denied_to_everybody_and_health_to_nobody(who: str, action: Action) -> None:
    decision = decide(a_subject(who), action, "dc-north", forbidden=tuple(Action))
    assert decision.is_allowed is (action is Action.HEALTH)
    assert decision.code == ("" if decision.is_allowed else "site-forbids")


def test_a_role_at_one_site_is_none_at_another() -> None:
    north = Subject(name="ada", standing=Standing.PERSON, person=a_person(Role.OPERATOR, sites=frozenset({"north"})))
    assert decide(north, Action.OPERATE, "north") == ALLOWED
    elsewhere = decide(north, Action.READ, "south")
    assert (elsewhere.code, elsewhere.message) == ("role", "ada (without a role at south) may not read at south")


def test_roles_add_up() -> None:
    both = Subject(name="ada", standing=Standing.PERSON, person=a_person(Role.OPERATOR, Role.APPROVER))
    allowed = {action for action in Action if decide(both, action, "north").is_allowed}
    assert allowed == {Action.HEALTH} | RIGHTS[Role.OPERATOR] | RIGHTS[Role.APPROVER]


# --- accounts -----------------------------------------------------------------------------------------------------

ADA = Person(id="ada", name="Ada Byron", grants=(Grant(role=Role.APPROVER),), uids={"north": 1001, "south": 7})


def test_an_account_is_the_person_whose_it_is_at_that_site() -> None:
    people = People([ADA])
    at_home = people.behind_account(site="north", uid=1001, user="abyron", is_house=False)
    assert (at_home.actor, at_home.standing, at_home.person) == ("ada", Standing.PERSON, ADA)
    elsewhere = people.behind_account(site="south", uid=1001, user="abyron", is_house=False)
    assert (elsewhere.actor, elsewhere.standing, elsewhere.person) == ("abyron", Standing.STRANGER, None)


def test_in_an_estate_without_people_whoever_gets_in_is_of_the_house() -> None:
    subject = People().behind_account(site="north", uid=1001, user="abyron", is_house=False)
    assert (subject.actor, subject.standing) == ("abyron", Standing.HOUSE)


def test_the_agents_own_account_approves_nothing_also_where_it_is_a_persons() -> None:
    subject = People([ADA]).behind_account(site="north", uid=1001, user="abyron", is_house=True)
    assert (subject.actor, subject.person) == ("ada", ADA)
    assert decide(subject, Action.ADMINISTER, "north") == ALLOWED
    refused = decide(subject, Action.APPROVE, "north")
    assert (refused.code, refused.is_allowed) == ("needs-a-person", False)


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", Role)
@pytest.mark.parametrize("scoped", Role)
@pytest.mark.parametrize("action", Action)
def test_a_token_may_what_both_its_scope_and_its_person_may(held: Role, scoped: Role, action: Action) -> None:
    subject = by_token(a_person(held), a_scope(scoped))
    may = held is scoped and action in RIGHTS[held]
    assert decide(subject, action, "north").is_allowed is (may or action is Action.HEALTH)


@pytest.mark.parametrize("site", ["north", "south", "west"])
def test_a_token_holds_where_both_its_scope_and_its_person_do(site: str) -> None:
    person = a_person(Role.VIEWER, sites=frozenset({"north", "west"}))
    subject = by_token(person, a_scope(Role.VIEWER, sites=frozenset({"north", "south"})))
    assert decide(subject, Action.READ, site).is_allowed is (site == "north")


def test_a_token_that_is_less_than_its_person_says_so() -> None:
    subject = by_token(a_person(Role.VIEWER, Role.OPERATOR), a_scope(Role.VIEWER))
    decision = decide(subject, Action.OPERATE, "north")
    assert decision.message == "ada by the token ci (viewer) may not operate at north"
    assert decision.hint.endswith("which ada has and this token has not: make one that has it")


def test_a_token_of_somebody_who_left_is_nobodys() -> None:
    assert People([ADA]).behind_token("bo", a_scope(Role.VIEWER)) is None


def test_the_audit_names_the_person_and_the_token() -> None:
    assert by_token(ADA, a_scope(Role.APPROVER)).actor == "ada/ci"


def test_what_was_done_by_a_token_may_be_the_act_of_whoever_made_it() -> None:
    assert by_token(ADA, a_scope(Role.ENGINEER)).hands == {"ada", "bo"}
    assert by_token(ADA, replace(a_scope(Role.ENGINEER), issued_by="ada")).hands == {"ada"}
    assert a_subject(Role.APPROVER).hands == {"ada"}
    beyond = People([ADA]).behind_another_agent(by_token(ADA, a_scope(Role.ENGINEER)).vouched, via="hq")
    assert beyond.hands == {"ada", "bo"}, "another agent is told who made it"


def test_a_token_makes_no_tokens() -> None:
    assert may_issue(a_subject(Role.ADMIN), {Role.VIEWER}, "bo") == ALLOWED
    by_another = by_token(a_person(Role.ADMIN), a_scope(Role.ADMIN))
    assert may_issue(by_another, {Role.VIEWER}, "bo").code == "token-by-token"


def test_root_makes_no_token_that_approves() -> None:
    assert may_issue(a_subject(Standing.HOUSE), set(Role) - {Role.APPROVER}, "bo") == ALLOWED
    assert may_issue(a_subject(Standing.HOUSE), {Role.APPROVER}, "bo").code == "needs-a-person"


def test_a_token_that_approves_is_made_by_its_own_person_alone() -> None:
    admin = a_subject(Role.ADMIN)
    assert may_issue(admin, {Role.APPROVER}, admin.name) == ALLOWED
    refused = may_issue(admin, {Role.VIEWER, Role.APPROVER}, "bo")
    assert (refused.is_allowed, refused.code) == (False, "not-your-eyes")
    assert "bo makes it" in refused.hint


@pytest.mark.parametrize(
    ("held_at", "wanted", "holds"),
    [
        (None, None, True),
        (None, {"north"}, True),
        ({"north"}, {"north"}, True),
        ({"north"}, {"north", "south"}, False),
        ({"north", "south"}, None, False),
    ],
)
def test_a_role_is_held_at_all_of_some_sites(held_at: set[str] | None, wanted: set[str] | None, holds: bool) -> None:
    person = a_person(Role.VIEWER, sites=None if held_at is None else frozenset(held_at))
    assert person.holds(Role.VIEWER, wanted) is holds
    assert not person.holds(Role.ADMIN, wanted)


# --- estate.yaml --------------------------------------------------------------------------------------------------

SETTINGS = {"name": "acme", "environment": "test", "currency": "EUR"}
PEOPLE = {
    "ada": {
        "name": "Ada Byron",
        "uids": {"dc-north": 1001},
        "roles": [{"role": "operator", "sites": ["dc-north"]}, {"role": "viewer"}],
    }
}


def test_the_estate_knows_its_people() -> None:
    directory = EstateSettings.model_validate({**SETTINGS, "people": PEOPLE}).directory
    subject = directory.behind_account(site="dc-north", uid=1001, user="abyron", is_house=False)
    assert subject.name == "ada"
    assert subject.roles_at("dc-north") == {Role.OPERATOR, Role.VIEWER}
    assert subject.roles_at("dc-south") == {Role.VIEWER}


def test_an_estate_without_people_has_the_hash_that_it_had() -> None:
    estate = Estate(settings=EstateSettings.model_validate(SETTINGS), sites={}, flows={})
    assert b"people" not in estate.to_json()
    peopled = Estate(settings=EstateSettings.model_validate({**SETTINGS, "people": PEOPLE}), sites={}, flows={})
    assert Estate.from_json(peopled.to_json()) == peopled
    assert peopled.hash != estate.hash


@pytest.mark.parametrize("uid", [0, -1, True, "1001", 2**32 - 1])
def test_root_and_numbers_that_no_account_has_are_nobodys(uid: object) -> None:
    people = {"ada": {**PEOPLE["ada"], "uids": {"dc-north": uid}}}
    with pytest.raises(ValidationError, match="dc-north"):
        EstateSettings.model_validate({**SETTINGS, "people": people})


def test_the_table_of_the_page_is_the_table_that_is_in_force() -> None:
    page = (Path(__file__).parents[2] / "docs" / "estate.md").read_text()
    columns = (Action.READ, Action.READ_PAYLOADS, Action.OPERATE, Action.APPROVE, Action.ENGINEER, Action.ADMINISTER)
    told = re.findall(r"^\| `(\w+)` \|((?: (?:yes)? ?\|){6})$", page, re.MULTILINE)
    assert {
        Role(role): {action for action, cell in zip(columns, cells.split("|"), strict=False) if cell.strip() == "yes"}
        for role, cells in told
    } == dict(RIGHTS)
