"""Takes in what another agent sent: events, their deliveries here and their way on, in the transaction that moves its mark.

An event that cannot be taken in yet waits (`state.unapplied`); one that never can be is set aside as a dead letter. Either way
the stream goes on.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeAlias

import orjson

from agent import taken_ids
from agent.estate.compiled import CompiledFlow, CompiledLane
from agent.estate.known import KnownEstate, KnownEstates
from agent.lanes import open_lane
from agent.outcomes import ANSWERED_SITE
from agent.outcomes import CONTRACT as OUTCOME
from agent.owing import owe
from agent.router import route
from agent.sync.frames import Malformed, Segment
from agent.sync.needs import Reason, fit
from agent.sync.outgoing import Departure, Outgoing
from state import dead_letters, inbox, streams, unapplied
from state.dead_letters import Letter
from state.inbox import Admitted, Arrival
from state.lanes import list_lanes
from state.model.canonical.reading import references_in
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, DistctlError, NotFoundError, RejectedError
from state.model.event import Environment, Event
from state.model.ids import EventId
from state.model.stream import BEGINNING, Mark
from state.model.visible import shown, visible
from state.peers import Peer
from state.streams import PeerId

_NO_ESTATE = "no-estate"
_BEHIND = "waiting-behind"

_Order: TypeAlias = tuple[str, str, str]
"""Of what arose at one site, a flow and a partition key: one site never keeps another's events waiting."""


@dataclass(slots=True)
class TakenIn:
    """What segments came to."""

    mark: Mark = BEGINNING  # of the last of them
    owed: set[str] = field(default_factory=set)  # targets with new deliveries
    sent_to: set[str] = field(default_factory=set)  # sites that are to have something of it
    is_answer: bool = False  # with this the peer has given back what it had
    is_bundle: bool = False  # an estate of the hub may be there to be judged

    def add(self, other: TakenIn) -> None:
        """What another segment came to as well."""
        self.mark = other.mark
        self.owed |= other.owed
        self.sent_to |= other.sent_to


class Incoming:
    """What comes to one agent. Its methods run inside a unit of work."""

    def __init__(
        self, here: str, outgoing: Outgoing, known: KnownEstates, *, environment: Environment, clock: Clock
    ) -> None:
        self._here = here
        self._outgoing = outgoing
        self._known = known
        self._environment = environment
        self._clock = clock

    @property
    def outgoing(self) -> Outgoing:
        """What leaves this agent."""
        return self._outgoing

    def take_in(self, connection: sqlite3.Connection, peer: Peer, segment: Segment) -> TakenIn | Reason:
        """Take in what is new of a segment of the peer's present epoch; the reason where it does not fit what is here."""
        mark = streams.received(connection, peer.id, epoch=peer.epoch).get(segment.tier, BEGINNING)
        known = fit(mark, segment.after, [(event.id, event.data) for event in segment.events])
        if isinstance(known, Reason):
            return known
        taken = TakenIn(mark)
        new = segment.events[known:]
        for event in new:
            taken.mark = taken.mark.after(event.id, event.data)
        if new:
            again = {event.id for event in segment.events[: segment.again]}
            self._apply(connection, peer, segment.tier, new, taken, again)
            streams.receive(connection, peer.id, epoch=peer.epoch, tier=segment.tier, mark=taken.mark)
        return taken

    def take_in_what_waited(self, connection: sqlite3.Connection, peers: Callable[[], Iterable[Peer]]) -> TakenIn:
        """An estate arrived: try again what waits for one, in its order. `peers` are asked for when something is taken in."""
        by_number: dict[PeerId, Peer] = {}
        taken, still = TakenIn(), set[_Order]()
        for waiting in unapplied.take(connection):
            event = waiting.event
            if _orders(event) & still or self._estate_of(connection, event) is None:
                still |= _orders(event)
                continue
            unapplied.remove(connection, waiting)
            again = {event.id} if waiting.is_again else frozenset[EventId]()
            by_number = by_number or {peer.id: peer for peer in peers()}
            peer = by_number[waiting.peer]
            is_owed_back = self._is_owed_back(peer, event)
            self._admit(connection, peer, waiting.tier, [event], taken, again, is_owed_back=is_owed_back)
        return taken

    def _apply(
        self,
        connection: sqlite3.Connection,
        peer: Peer,
        tier: int,
        events: Sequence[Event | Malformed],
        taken: TakenIn,
        again: Collection[EventId],
    ) -> None:
        """Sort the events: those that can be taken in now, those that wait, those that never can be."""
        waiting = set[_Order]()
        now: list[Event] = []
        later: list[tuple[Event, str]] = []
        for event in events:
            if isinstance(event, Malformed):
                self._set_aside(connection, peer, event, event.error)
            elif event.environment is not self._environment:
                self._set_aside(connection, peer, event, _other_environment(event, self._environment))
            elif not self._may_speak_for(connection, peer, event):
                self._set_aside(connection, peer, event, _arose_elsewhere(peer.site, event))
            elif _orders(event) & waiting or self._is_behind(connection, event):
                waiting |= _orders(event)
                later.append((event, _BEHIND))
            elif self._estate_of(connection, event) is None:
                waiting |= _orders(event)
                later.append((event, _NO_ESTATE))
            else:
                now.append(event)
        self._admit(connection, peer, tier, now, taken, again)
        millis = to_millis(self._clock.now())
        for event, code in later:
            if (holder := unapplied.site_of(connection, event.id)) not in {None, event.site}:
                self._set_aside_taken(connection, peer, event, str(holder))
                continue
            detail = f"estate {event.estate} was never in force here"
            unapplied.add(
                connection, [event], peer=peer.id, tier=tier, code=code, detail=detail, now=millis, again=again
            )

    def _admit(
        self,
        connection: sqlite3.Connection,
        peer: Peer,
        tier: int,
        events: Iterable[Event],
        taken: TakenIn,
        again: Collection[EventId],
        *,
        is_owed_back: bool = False,
    ) -> None:
        """Admit the events, owe them to the lanes of this site, and send them on. `again`: what may have been here before.

        Where it `is_owed_back` they go to the peer as well.
        """
        own = [event for event in events if self._is_its_own(connection, peer, event)]
        set_aside = partial(self._set_aside_taken, connection, peer)
        admitted = inbox.admit(connection, [Arrival(event, _references(event)) for event in own], on_taken=set_aside)
        departures: list[Departure] = []
        by_flow: defaultdict[str, list[tuple[Admitted, Sequence[CompiledLane]]]] = defaultdict(list)
        for one in admitted:
            lanes = self._wanting(connection, peer, one.event)
            here = [lane for lane in lanes if lane.site == self._here]
            wanted_at = {lane.site for lane in lanes} | self._answered(connection, one.event)
            is_back = self._is_given_back(peer, one.event)  # in no stream of this life, so its giver may yet lose it
            wanted_at |= {peer.site} if is_owed_back else set()
            came_from = None if is_back or is_owed_back else peer.site
            departures.append(Departure(one, tier, wanted_at, self._domain(connection, one.event), came_from))
            by_flow[one.event.flow].append((one, here))
            taken.owed.update(lane.name for lane in here)
        for flow, routed in by_flow.items():
            doubted = {
                one.event.id: one.event.recordedtime
                for one, _ in routed
                if one.event.id in again or self._is_given_back(peer, one.event)
            }
            self._owe(connection, flow, routed, doubted, came_in=f"stream of {peer.site}")
        taken.sent_to |= self._outgoing.send(connection, departures)

    def _is_behind(self, connection: sqlite3.Connection, event: Event) -> bool:
        return any(unapplied.is_behind(connection, *order, beside=OUTCOME) for order in _orders(event))

    def _may_speak_for(self, connection: sqlite3.Connection, peer: Peer, event: Event) -> bool:
        """Whether what arose at the event's site may come from the peer. The hub and its second agent hand on what is others'."""
        is_others = not self._outgoing.is_hub or peer.site == self._outgoing.second
        return is_others or event.site == peer.site or self._is_own_answer(connection, peer, event)

    def _is_its_own(self, connection: sqlite3.Connection, peer: Peer, event: Event) -> bool:
        """Whether a site may hand up the event; what is not its own is set aside."""
        if not self._outgoing.is_hub or peer.site == self._outgoing.second:
            return True
        if self._is_own_answer(connection, peer, event):
            return True
        flow = self._known.get(connection, event.estate).compiled.flows.get(event.flow)
        error = _foreign(peer.site, event, flow)
        if error is not None:
            self._set_aside(connection, peer, event, error)
        return error is None

    def _domain(self, connection: sqlite3.Connection, event: Event) -> str:
        flow = self._known.get(connection, event.estate).compiled.flows.get(event.flow)
        return flow.spec.order_domain if flow else event.flow

    def _is_given_back(self, peer: Peer, event: Event) -> bool:
        """Whether an event was here in a life that ended: who sends it here does not have it from where it arose."""
        return event.site == self._here or (self._outgoing.is_hub and event.site != peer.site)

    def _is_owed_back(self, peer: Peer, event: Event) -> bool:
        """Whether the peer may have lost an event that has waited here: it was in no stream when lives of the peer ended."""
        if peer.epoch == 1 or not self._outgoing.keeps_others:
            return False
        return event.site == peer.site if self._outgoing.is_hub else event.site != self._here

    def _is_own_answer(self, connection: sqlite3.Connection, peer: Peer, event: Event) -> bool:
        """Whether a site gives back what a target here said of an event of that site."""
        return (
            event.contract == OUTCOME
            and event.site == self._here
            and event.causationid is not None
            and _target(event) == f"{event.site}/{event.system}"
            and event.extensions.get(ANSWERED_SITE) == peer.site
            and inbox.site_of(connection, event.causationid) in {None, peer.site}
        )

    def _owe(
        self,
        connection: sqlite3.Connection,
        flow: str,
        routed: Sequence[tuple[Admitted, Sequence[CompiledLane]]],
        again: Mapping[EventId, datetime],
        *,
        came_in: str,
    ) -> None:
        lanes = {(lane.flow, lane.target): lane for lane in list_lanes(connection)}
        missing = {
            (lane.name, one.event.estate): (one.event, lane)
            for one, wanting in routed
            for lane in wanting
            if (flow, lane.name) not in lanes
        }
        for event, lane in missing.values():  # the estate that brings the lane was never in force here
            compiled = self._known.get(connection, event.estate).compiled
            open_lane(connection, compiled.estate, compiled.flows[flow], lane)
        if missing:
            lanes = {(lane.flow, lane.target): lane for lane in list_lanes(connection)}
        owe(connection, routed, lanes, flow=flow, came_in=came_in, now=self._clock.now(), again=again)

    def _wanting(self, connection: sqlite3.Connection, peer: Peer, event: Event) -> Sequence[CompiledLane]:
        """The lanes that want the event, by the estate that it carries. An outcome is never answered, so none wants it."""
        if event.contract == OUTCOME:
            return ()
        try:
            return route(event, self._known.get(connection, event.estate).compiled.flows[event.flow])
        except KeyError:
            self._set_aside(connection, peer, event, _no_flow(event))
        except DistctlError as error:
            self._set_aside(connection, peer, event, error)
        return ()

    def _answered(self, connection: sqlite3.Connection, event: Event) -> set[str]:
        """The site where the event arose that this one answers: as we know it, or as this one says."""
        if event.contract != OUTCOME or event.causationid is None:
            return set()
        sites = self._known.get(connection, event.estate).compiled.estate.sites
        site = inbox.site_of(connection, event.causationid) or event.extensions.get(ANSWERED_SITE)
        return {site} if isinstance(site, str) and site in sites else set()

    def _estate_of(self, connection: sqlite3.Connection, event: Event) -> KnownEstate | None:
        try:
            return self._known.get(connection, event.estate)
        except (NotFoundError, ConfigError):  # not here yet, or of a newer version than ours
            return None

    def _set_aside_taken(self, connection: sqlite3.Connection, peer: Peer, event: Event, holder: str) -> None:
        taken_ids.set_aside(connection, event, holder, came_from=peer.site, now=self._clock.now())

    def _set_aside(
        self, connection: sqlite3.Connection, peer: Peer, event: Event | Malformed, error: DistctlError
    ) -> None:
        rejected = error if isinstance(error, RejectedError) else None
        letter = Letter(
            record_id=taken_ids.record_id(peer.site, event.id),
            site=peer.site,
            system="agent",
            flow=event.flow if isinstance(event, Event) else "",
            subject=event.subject if isinstance(event, Event) else "",
            place=f"event {event.id} from {peer.site}",
            field=rejected.place if rejected else "",
            rule=(rejected.rule if rejected else "") or error.message,
            code=error.code,
            shown=rejected.shown if rejected else "",
            message=error.message,
            hint=error.hint,
            raw=event.to_json() if isinstance(event, Event) else event.attributes + b"\n" + event.data,
        )
        dead_letters.add(connection, [letter], now=to_millis(self._clock.now()))


def _references(event: Event) -> Sequence[tuple[str, str]]:
    """The other business keys in the document; none where this version does not know its contract."""
    if event.contract == OUTCOME:
        return ()
    try:
        return references_in(event.contract, event.data)
    except (ConfigError, RejectedError):
        return ()


def _foreign(site: str, event: Event, flow: CompiledFlow | None) -> RejectedError | None:
    """Why an event is not that site's to hand up: it arose elsewhere, or at a system that its flow or delivery is not of."""
    system = f"{event.site}/{event.system}"
    if event.site != site:
        return _arose_elsewhere(site, event)
    if event.contract == OUTCOME:
        target = _target(event)
        return None if target == system else _not_its_own("target", target, f"{system} told an outcome of {target}")
    if flow is None:
        return None
    if system != flow.source:
        return _not_its_own(
            "source", system, f"{system} handed up an event of {event.flow}, which {flow.source} is read for"
        )
    if event.contract != flow.spec.contract:
        return _not_its_own(
            "contract", event.contract, f"{event.flow} carries {flow.spec.contract}, not {event.contract}"
        )
    return None


def _orders(event: Event) -> set[_Order]:
    """In which order the event stands; an outcome in none, since its revision says whether it counts."""
    return set() if event.contract == OUTCOME else {(event.site, event.flow, event.partitionkey)}


def _arose_elsewhere(site: str, event: Event) -> RejectedError:
    return _not_its_own("site", event.site, f"the agent of {site} handed up an event of {event.site}")


def _target(event: Event) -> str:
    said = orjson.loads(event.data)
    return str(said.get("target", "")) if isinstance(said, dict) else ""


def _not_its_own(place: str, found: str, message: str) -> RejectedError:
    return RejectedError(
        visible(message),
        place=place,
        rule="a site hands up what arose at its own systems, and what they said of deliveries",
        shown=shown(found),
        hint="nothing was done with it: find out what wrote it there, and deny that agent until then: "
        "`distctl agents deny SITE --reason ...`",
        code="not-its-own",
    )


def _other_environment(event: Event, ours: Environment) -> RejectedError:
    return RejectedError(
        f"an event of {event.environment} came to an agent of {ours}",
        place="environment",
        rule="an event of one environment never reaches a system of the other",
        shown=event.environment,
        hint="one of the two agents runs another company's or another environment's estate",
        code="environment",
    )


def _no_flow(event: Event) -> RejectedError:
    return RejectedError(
        f"the estate {event.estate} has no flow {event.flow}",
        place="flow",
        rule="an event belongs to a flow of the estate that it carries",
        shown=event.flow,
        hint="this is a fault of the agent that sent it: report it with the versions of both",
        code="estate",
    )
