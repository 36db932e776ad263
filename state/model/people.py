"""Who may do what, and where: rights are (role, action, site). Pure.

A person of the estate has roles, each at some sites or at all. A call is made by a `Subject`: an account of the machine, or a
token of a person. `decide` answers from the table `RIGHTS` alone, so whoever reads that table knows what each role may do.

Three stand outside the table. In an estate that declares nobody, whoever may open the agent's socket does everything but approve.
Once people are declared, root and the agent's own account keep that much and whoever is not declared sees `health` alone.
An approval needs a person, so root approves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    """What somebody is at a site. Roles add up."""

    VIEWER = "viewer"  # sees how it goes
    OPERATOR = "operator"  # keeps it going, at 02:00
    APPROVER = "approver"  # decides what waits for a person
    ENGINEER = "engineer"  # changes flows and systems
    ADMIN = "admin"  # lets people and agents in, and keeps them out


class Action(StrEnum):
    """What a call does. Each route of the control API is of one."""

    HEALTH = "health"  # whether the agent works: for everybody
    READ = "read"  # status, lists, traces, the audit
    READ_PAYLOADS = "read-payloads"  # the data of events, raw records, what was sent
    OPERATE = "operate"  # resume, replay, hold, override
    APPROVE = "approve"  # decide an approval
    ENGINEER = "engineer"  # put an estate in force
    ADMINISTER = "administer"  # tokens, and which agents belong to the estate


# fmt: off
RIGHTS: Final[Mapping[Role, frozenset[Action]]] = MappingProxyType({
    Role.VIEWER:   frozenset({Action.READ}),
    Role.OPERATOR: frozenset({Action.READ, Action.READ_PAYLOADS, Action.OPERATE}),
    Role.APPROVER: frozenset({Action.READ, Action.READ_PAYLOADS, Action.APPROVE}),
    Role.ENGINEER: frozenset({Action.READ, Action.READ_PAYLOADS, Action.ENGINEER}),
    Role.ADMIN:    frozenset({Action.READ, Action.ADMINISTER}),
})
"""The table. What is not in it is denied; `health` is everybody's."""
# fmt: on

RESERVED_NAMES: Final = frozenset({"agent", "root"})
"""What no person may be called: the audit uses these names for others."""

_PHRASES: Final = {
    Action.HEALTH: "ask for the health",
    Action.READ: "read",
    Action.READ_PAYLOADS: "read payloads",
    Action.OPERATE: "operate",
    Action.APPROVE: "approve",
    Action.ENGINEER: "change the estate",
    Action.ADMINISTER: "administer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role at some sites; `sites` None is every site."""

    role: Role
    sites: frozenset[str] | None = None

    def is_at(self, site: str) -> bool:
        """Whether it holds there."""
        return self.sites is None or site in self.sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody of the estate: the one behind an account at each site, and behind tokens. `id` is what the audit says."""

    id: str
    name: str
    grants: tuple[Grant, ...]
    uids: Mapping[str, int] = field(default_factory=dict)  # by site

    def roles_at(self, site: str) -> frozenset[Role]:
        """The roles held there."""
        return frozenset(grant.role for grant in self.grants if grant.is_at(site))

    def holds(self, role: Role, sites: Collection[str] | None) -> bool:
        """Whether the role is held at all of `sites`; None is every site, and then a grant must say every site too."""
        own = [grant for grant in self.grants if grant.role is role]
        if sites is None:
            return any(grant.sites is None for grant in own)
        return all(any(grant.is_at(site) for grant in own) for site in sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a token was made for: never more than its person has when it is used."""

    token: str
    roles: frozenset[Role]
    sites: frozenset[str] | None  # None: every site
    issued_by: str  # who made it, as in the audit

    def roles_at(self, site: str) -> frozenset[Role]:
        """The roles that it was made for there."""
        return self.roles if self.sites is None or site in self.sites else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """A token that somebody asks for. `sites` None is every site, now and later."""

    name: str
    person: str
    roles: frozenset[Role]
    sites: frozenset[str] | None
    lasts: timedelta


class Standing(StrEnum):
    """As what somebody asks."""

    PERSON = "person"  # by the roles of the table
    HOUSE = "house"  # root, the agent's own account, or anybody in an estate without people: everything but approve
    STRANGER = "stranger"  # an account that the estate does not name


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """Whom one agent vouches for to another: a name, the id of a person if it is one, and the token that they showed."""

    name: str
    person: str | None = None
    scope: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who asks. `person` is known where the estate names one, also behind the agent's own account."""

    name: str
    standing: Standing
    person: Person | None = None
    scope: Scope | None = None
    via: str = ""  # the site whose agent vouches for them

    @property
    def actor(self) -> str:
        """What the audit says: `ada`, `ada/ci-deploy` through a token, `ada via hq` from another site, else the account."""
        own = f"{self.name}/{self.scope.token}" if self.scope else self.name
        return f"{own} via {self.via}" if self.via else own

    @property
    def hands(self) -> frozenset[str]:
        """Whose act a call may be: also that of whoever made the token, since they saw its text.

        For the four eyes all of them are one: none of them approves what the call wrote.
        """
        return frozenset({self.name, self.scope.issued_by} if self.scope else {self.name})

    @property
    def vouched(self) -> Vouched:
        """What another agent is told of them."""
        return Vouched(name=self.name, person=self.person.id if self.person else None, scope=self.scope)

    def roles_at(self, site: str) -> frozenset[Role]:
        """The roles that count there: through a token, those that both it and its person have."""
        roles = self.person.roles_at(site) if self.person else frozenset()
        return roles & self.scope.roles_at(site) if self.scope else roles


class People:
    """Everybody whom an estate declares."""

    def __init__(self, persons: Collection[Person] = ()) -> None:
        self._persons = {person.id: person for person in persons}
        self._accounts = {(site, uid): person for person in persons for site, uid in person.uids.items()}

    def __iter__(self) -> Iterator[Person]:
        return iter(self._persons.values())

    def __len__(self) -> int:
        return len(self._persons)

    def find(self, person: str) -> Person | None:
        """The person of that id."""
        return self._persons.get(person)

    def behind_account(self, *, site: str, uid: int, user: str, is_house: bool) -> Subject:
        """The subject behind an account of the machine at `site`; `is_house` for root and the agent's own account."""
        person = self._accounts.get((site, uid))
        if is_house or not self._persons:
            return Subject(name=person.id if person else user, standing=Standing.HOUSE, person=person)
        if person is None:
            return Subject(name=user, standing=Standing.STRANGER)
        return Subject(name=person.id, standing=Standing.PERSON, person=person)

    def behind_token(self, person: str, scope: Scope) -> Subject | None:
        """The subject behind a token of `person`; None where the estate no longer names them."""
        found = self.find(person)
        return Subject(name=found.id, standing=Standing.PERSON, person=found, scope=scope) if found else None

    def behind_another_agent(self, caller: Vouched, *, via: str = "") -> Subject:
        """The subject of a call that concerns another site than the one where the caller is.

        A person has the roles that this estate gives them there. Root and an agent's own account are that on their machine alone:
        elsewhere they count in an estate without people, where whoever is let in does everything but approve.
        """
        found = self.find(caller.person) if caller.person else None
        if found is not None:
            return Subject(name=found.id, standing=Standing.PERSON, person=found, scope=caller.scope, via=via)
        is_house = not self._persons and caller.scope is None
        standing = Standing.HOUSE if is_house else Standing.STRANGER
        return Subject(name=caller.name, standing=standing, scope=caller.scope, via=via)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` came to. A refusal says who, what and where, and in `hint` which roles could."""

    is_allowed: bool
    code: str = ""
    message: str = ""
    hint: str = ""


ALLOWED: Final = Decision(is_allowed=True)


def decide(subject: Subject, action: Action, site: str, *, forbidden: Collection[Action] = ()) -> Decision:
    """Whether `subject` may do `action` at `site`. What the site has `forbidden` is denied to everybody, `health` to nobody."""
    if action is Action.HEALTH:
        return ALLOWED
    if action in forbidden:
        hint = f"a site decides that itself: `forbids` in the file of {site}"
        return Decision(
            is_allowed=False, code="site-forbids", message=f"{site} lets nobody {_PHRASES[action]} there", hint=hint
        )
    match subject.standing:
        case Standing.HOUSE if action is not Action.APPROVE:
            return ALLOWED
        case Standing.PERSON if any(action in RIGHTS[role] for role in subject.roles_at(site)):
            return ALLOWED
        case _:
            return _refusal(subject, action, site)


def may_issue(subject: Subject, roles: Collection[Role], person: str) -> Decision:
    """Whether `subject`, who may administer, may make a token with these roles for `person`.

    A token makes no others, or one that was stolen would outlive its end. One that approves is made by its own person alone:
    whoever makes a token sees its text, and with another's could be both pairs of the four eyes.
    """
    if subject.scope is not None:
        message = f"the token {subject.scope.token} makes no other tokens"
        hint = "ask under an account of your own, at the agent that is to keep it"
        return Decision(is_allowed=False, code="token-by-token", message=message, hint=hint)
    if Role.APPROVER in roles and subject.standing is Standing.HOUSE:
        message = f"{subject.name} approves nothing, and makes no token that does"
        hint = f"it takes a person with the role {' or '.join(roles_for(Action.ADMINISTER))}, under an account of their own"
        return Decision(is_allowed=False, code="needs-a-person", message=message, hint=hint)
    if Role.APPROVER in roles and subject.name != person:
        message = f"{subject.name} makes no token that approves in the name of {person}"
        hint = f"whoever makes it could approve with it: {person} makes it, under an account of their own"
        return Decision(is_allowed=False, code="not-your-eyes", message=message, hint=hint)
    return ALLOWED


def roles_for(action: Action) -> list[Role]:
    """The roles that may do it, in the order of the table."""
    return [role for role in Role if action in RIGHTS[role]]


def _refusal(subject: Subject, action: Action, site: str) -> Decision:
    could = f"it takes the role {' or '.join(roles_for(action))} at {site}"
    match subject.standing:
        case Standing.HOUSE:
            message = f"{subject.name} approves nothing: an approval is a person's, under an account of their own"
            return Decision(is_allowed=False, code="needs-a-person", message=message, hint=could)
        case Standing.STRANGER:
            message = f"{subject.name} is nobody whom the estate names, and may not {_PHRASES[action]} at {site}"
            hint = f"{could}: `people` in estate.yaml gives an account its person and a person their roles"
            return Decision(is_allowed=False, code="stranger", message=message, hint=hint)
        case Standing.PERSON:
            message = f"{_described(subject, site)} may not {_PHRASES[action]} at {site}"
            return Decision(is_allowed=False, code="role", message=message, hint=_way(subject, action, site, could))


def _described(subject: Subject, site: str) -> str:
    own = ", ".join(sorted(subject.roles_at(site))) or f"without a role at {site}"
    return f"{subject.name}{f' by the token {subject.scope.token}' if subject.scope else ''} ({own})"


def _way(subject: Subject, action: Action, site: str, could: str) -> str:
    """Where the role is missing: in the token alone, or with the person."""
    own = subject.person.roles_at(site) if subject.person else frozenset()
    if subject.scope and any(action in RIGHTS[role] for role in own):
        return f"{could}, which {subject.name} has and this token has not: make one that has it"
    return f"{could}: `people` in estate.yaml gives roles"
