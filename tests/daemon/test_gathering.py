"""A store that begins again gets back what others have of the life before, and goes on only then."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from agent.gathering import Gathering
from state import dead_letters, estates, lanes, life, peers, restore
from state.lanes import list_lanes
from state.model.clock import to_millis
from state.model.delivery import DeliveryState, TargetMemory
from state.model.errors import RejectedError
from state.outbox import Outbox, next_fence
from tests.daemon.link_rig import (
    CLOCK,
    FROM_HQ,
    FROM_SOUTH,
    HUB,
    AgentAt,
    Estatewide,
    an_estate,
    estatewide,
    holds,
    until,
)

_OWN_TARGET = ("hq/erp", "north/planning", "south/wms")


def begin_again(connection: sqlite3.Connection) -> None:
    """What `distctl restore` does."""
    life.begin_epoch(connection, now=to_millis(CLOCK.now()))


async def grow(whole: Estatewide, *revisions: int, site: str = "north", flow: str = "reco") -> None:
    agent = whole.agents[site]
    await agent.arises(*[agent.event("R-1", revision, flow=flow) for revision in revisions])


async def states(agent: AgentAt, target: str) -> dict[int, str]:
    """Of each revision that is owed to a target, how its delivery stands."""
    rows = await agent.rows(
        "SELECT json_extract(CAST(e.data AS TEXT), '$.revision'), d.state FROM deliveries d"
        " JOIN events e ON e.seq = d.event_seq JOIN lanes l ON l.id = d.lane_id JOIN targets t ON t.id = l.target_id"
        " WHERE t.name = ? ORDER BY d.id",
        target,
    )
    return dict(rows)


async def rest(whole: Estatewide, *names: str) -> None:
    await whole.in_step()
    for name in names:
        await whole.stop(name)


def gathering_of(agent: AgentAt) -> Gathering:
    return Gathering(agent.database, site=agent.site, clock=CLOCK)


async def put_back(whole: Estatewide, name: str, copy: str) -> AgentAt:
    """Replace the store of an agent by an older copy of it, as `distctl restore` does."""
    site = whole.agents[name].site
    await whole.close(name)
    restored = await whole.open(copy, site=site)
    whole.agents[name] = restored
    await restored.database.write(begin_again)
    return restored


async def test_a_restored_hub_waits_until_every_site_has_given_back_what_it_had(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await grow(whole, 2)
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        gathering = gathering_of(restored)
        assert (await gathering.is_over(), gathering.awaited) == (False, ["north", "south"])
        assert "north, south" in gathering.trouble
        whole.start("north")
        await until(lambda: holds(_looked_at(gathering), ["south"]))
        assert not await gathering.is_over()
        whole.start("south")
        await until(gathering.is_over)
        assert gathering.trouble == ""
        assert [row[0] for row in await restored.rows("SELECT action FROM audit ORDER BY seq DESC LIMIT 1")] == [
            "gathered"
        ]


async def _met(whole: Estatewide, name: str = HUB) -> list[str]:
    """The sites whose agents an agent, by default the hub, has met."""
    rows = await whole.agents[name].rows("SELECT site FROM peers WHERE epoch > 0 ORDER BY site")
    return [site for (site,) in rows]


async def _looked_at(gathering: Gathering) -> list[str]:
    await gathering.is_over()
    return gathering.awaited


async def test_a_site_that_will_not_answer_is_waived(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        restored = await put_back(whole, HUB, "old")
        gathering = gathering_of(restored)
        whole.start("south")
        await until(lambda: holds(_looked_at(gathering), ["north"]))
        await restored.database.write(
            lambda connection: peers.answer(connection, peers.ensure(connection, "north"), epoch=2)
        )
        assert await gathering.is_over()


async def test_what_a_restored_hub_may_have_delivered_begins_in_doubt_and_what_arose_since_does_not(
    tmp_path: Path,
) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await grow(whole, 2)
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        whole.start("north", "south")
        await until(lambda: gathering_of(restored).is_over())
        await grow(whole, 3)
        await until(lambda: holds(states(restored, "hq/erp"), {1: "pending", 2: "in_doubt", 3: "pending"}))
        [(first, last)] = await restored.rows(
            "SELECT first_sent_at, last_sent_at FROM deliveries WHERE state = 'in_doubt'"
        )
        assert first <= last
        same = {1: "pending", 2: "pending", 3: "pending"}
        await until(lambda: holds(states(whole.agents["south"], "south/wms"), same))


async def test_what_others_know_to_be_delivered_is_not_in_doubt_when_a_restored_hub_goes_on(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await until(lambda: holds(_met(whole), ["north", "south"]))
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        hub = whole.agents[HUB]
        await grow(whole, 1, 2)
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1), ("R-1", 2)]))
        await hub.delivers("hq/erp")
        await until(lambda: holds(whole.agents["north"].outcomes(), [("R-1", "hq/erp")]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        whole.start("north", "south")
        await until(lambda: holds(_owed_revisions(restored), [1, 2]))
        await until(lambda: gathering_of(restored).is_over())
        assert await states(restored, "hq/erp") == {1: "delivered", 2: "in_doubt"}
        assert await restored.rows("SELECT reference FROM deliveries WHERE state = 'delivered'") == [("4711",)]


async def test_what_was_parked_in_the_backup_and_delivered_since_is_settled_by_what_others_know(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await grow(whole, 1, 2)
        hub = whole.agents[HUB]
        await until(lambda: holds(hub.owes("hq/erp"), [("R-1", 1), ("R-1", 2)]))
        await rest(whole, "north", "south")
        await hub.database.write(_park_first)
        await whole.copy(HUB, "old")
        hub = whole.agents[HUB]
        await hub.database.write(_replay_first)
        whole.start("north", "south")
        await hub.delivers("hq/erp")
        await until(lambda: holds(whole.agents["north"].outcomes(), [("R-1", "hq/erp")]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        await restored.database.write(partial(restore.doubt, taken_at=CLOCK.now(), now=CLOCK.now()))
        whole.start("north", "south")
        await until(lambda: gathering_of(restored).is_over())
        assert await states(restored, "hq/erp") == {1: "delivered", 2: "in_doubt"}
        assert await restored.rows("SELECT state FROM dead_letters") == [("replayed",)]
        assert await restored.rows("SELECT state, head FROM key_queues WHERE lane_id = 1") == [("due", 2)]
        assert await restored.rows("SELECT parked, in_doubt, delivered FROM lanes WHERE id = 1") == [(0, 1, 1)]


def _park_first(connection: sqlite3.Connection) -> None:
    """The target refuses the first revision."""
    lane = next(lane for lane in list_lanes(connection) if lane.target == "hq/erp")
    with Outbox(connection, now=CLOCK.now()) as outbox:
        [claim] = outbox.claim(
            lane,
            fence=next_fence(connection),
            limit=1,
            memory=TargetMemory(),
            call_deadline=timedelta(seconds=1),
            render=lambda event: event.data,
        )
        outbox.park(claim, RejectedError("no such supplier"), lane=lane)


def _replay_first(connection: sqlite3.Connection) -> None:
    """A person has it sent again."""
    [(delivery, lane)] = connection.execute("SELECT id, lane_id FROM deliveries WHERE state = 'parked'")
    now = to_millis(CLOCK.now())
    connection.execute("UPDATE deliveries SET state = 'pending', due_at = ? WHERE id = ?", (now, delivery))
    connection.execute("UPDATE key_queues SET state = 'due', due_at = ? WHERE head = ?", (now, delivery))
    dead_letters.close(connection, delivery, "replayed", now=now)
    lanes.count(connection, {(lane, DeliveryState.PARKED): -1, (lane, DeliveryState.PENDING): 1})


@pytest.mark.parametrize("is_known", [True, False], ids=["and the site knows", "and nobody knows"])
async def test_a_snapshot_that_a_newer_one_had_passed_is_not_sent_after_it_by_a_restored_hub(
    tmp_path: Path, is_known: bool
) -> None:
    async with estatewide(tmp_path, mode="latest") as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        hub = whole.agents[HUB]
        await grow(whole, 2)
        await until(lambda: holds(states(hub, "hq/erp"), {1: "superseded", 2: "pending"}))
        if not is_known:
            await rest(whole, "north", "south")
        await hub.delivers("hq/erp")
        if is_known:
            await until(lambda: holds(whole.agents["north"].outcomes(), [("R-1", "hq/erp")]))
            await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        await restored.database.write(partial(restore.doubt, taken_at=CLOCK.now(), now=CLOCK.now()))
        whole.start("north", "south")
        await until(lambda: gathering_of(restored).is_over())
        assert await states(restored, "hq/erp") == {1: "superseded", 2: "delivered" if is_known else "in_doubt"}
        counted = await restored.rows("SELECT superseded, in_doubt, pending FROM lanes WHERE superseded > 0")
        assert counted == [(1, int(not is_known), 0)]


async def _owed_revisions(agent: AgentAt) -> list[int]:
    return sorted(await states(agent, "hq/erp"))


async def test_a_restored_site_gets_back_what_arose_there_since_its_backup(tmp_path: Path) -> None:
    async with estatewide(tmp_path, targets=_OWN_TARGET) as whole:
        whole.start("north", "south")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy("north", "old")
        await grow(whole, 2, 3)
        await rest(whole, "north", "south")
        restored = await put_back(whole, "north", "old")
        gathering = gathering_of(restored)
        assert not await gathering.is_over()
        whole.start("old", "south")
        await until(gathering.is_over)
        assert await states(restored, "north/planning") == {1: "pending", 2: "in_doubt", 3: "in_doubt"}
        await rest(whole, "old", "south")
        assert await whole.agents["south"].owes("south/wms") == [("R-1", 1), ("R-1", 2), ("R-1", 3)]
        assert await whole.agents[HUB].owes("hq/erp") == [("R-1", 1), ("R-1", 2), ("R-1", 3)]


async def test_a_site_that_was_adopted_on_an_old_copy_gathers_too(tmp_path: Path) -> None:
    async with estatewide(tmp_path, targets=_OWN_TARGET) as whole:
        whole.start("north")
        await grow(whole, 1)
        await whole.in_step()
        await whole.copy("north", "old")
        await grow(whole, 2)
        await rest(whole, "north")
        await whole.close("north")
        rewound = await whole.open("old", site="north")
        whole.agents["north"] = rewound
        whole.start("old")
        await until(lambda: holds(whole.fence_of("north"), ("fenced", "rewound")))
        await whole.stop("old")
        await whole.adopt("north")
        whole.start("old")
        await until(lambda: holds(_gathered(rewound), (2, True)))
        assert await states(rewound, "north/planning") == {1: "in_doubt", 2: "in_doubt"}
        await grow(whole, 3)
        await whole.in_step()
        assert await whole.agents[HUB].owes("hq/erp") == [("R-1", 1), ("R-1", 2), ("R-1", 3)]


async def _gathered(agent: AgentAt) -> tuple[int, bool]:
    [(epoch,)] = await agent.rows("SELECT epoch FROM life")
    return epoch, await gathering_of(agent).is_over()


async def test_the_second_agent_gives_back_what_the_hub_alone_had_read(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_HQ, second="south") as whole:
        whole.start("north", "south")
        await until(lambda: holds(_met(whole), ["north", "south"]))
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await grow(whole, 1, 2, site=HUB, flow="hq-reco")
        await grow(whole, 7)
        await until(lambda: holds(whole.agents["south"].rows("SELECT count(*) FROM events"), [(3,)]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        whole.start("north", "south")
        await until(lambda: gathering_of(restored).is_over())
        rows = await restored.rows(
            "SELECT o.site, json_extract(CAST(e.data AS TEXT), '$.revision') FROM events e"
            " JOIN origins o ON o.id = e.origin_id ORDER BY 1, 2"
        )
        assert rows == [("hq", 1), ("hq", 2), ("north", 7)]
        await rest(whole, "north", "south")
        letters = await restored.rows("SELECT count(*) FROM dead_letters")
        assert letters == [(0,)], "everything that came back was taken in"


async def test_what_a_target_says_to_a_restored_hub_is_told_though_the_life_before_told_otherwise(
    tmp_path: Path,
) -> None:
    async with estatewide(tmp_path) as whole:
        whole.start("north", "south")
        await until(lambda: holds(_met(whole), ["north", "south"]))
        await grow(whole, 1)
        await until(lambda: holds(whole.agents[HUB].owes("hq/erp"), [("R-1", 1)]))
        await rest(whole, "north", "south")
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        await whole.agents[HUB].delivers("hq/erp", says=b'{"target": "hq/erp", "state": "parked"}')
        await until(lambda: holds(_told(whole.agents["north"]), ["parked"]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, HUB, "old")
        whole.start("north", "south")
        await until(gathering_of(restored).is_over)
        await restored.delivers("hq/erp")
        await until(lambda: holds(_told(whole.agents["north"]), ["parked", "delivered"]))


async def _told(agent: AgentAt) -> list[str]:
    """What is known here of deliveries, in the order in which it came."""
    rows = await agent.rows(
        "SELECT json_extract(CAST(e.data AS TEXT), '$.state') FROM events e JOIN origins o ON o.id = e.origin_id"
        " WHERE o.op = 'ack' ORDER BY e.seq"
    )
    return [state for (state,) in rows]


async def lose_both(whole: Estatewide) -> tuple[AgentAt, AgentAt]:
    """Put back the hub and the site in the north from copies of before."""
    await rest(whole, "north", "south")
    hub = await put_back(whole, HUB, "old hub")
    north = await put_back(whole, "north", "old north")
    return hub, north


async def copy_both(whole: Estatewide) -> None:
    whole.start("north", "south")
    await until(lambda: holds(_met(whole), ["north", "south"]))
    await until(lambda: holds(_met(whole, "north"), [HUB]))
    await rest(whole, "north", "south")
    await whole.copy(HUB, "old hub")
    await whole.copy("north", "old north")
    whole.start("north", "south")


async def test_what_a_hub_and_a_site_lost_together_is_in_doubt_at_the_site(tmp_path: Path) -> None:
    async with estatewide(tmp_path, further=FROM_SOUTH) as whole:
        await copy_both(whole)
        south = whole.agents["south"]
        await south.arises(south.event("S-1", 1, flow="south-bulk"))
        await until(lambda: holds(whole.agents["north"].owes("north/planning"), [("S-1", 1)]))
        await whole.agents["north"].delivers("north/planning")
        await until(lambda: holds(south.outcomes(), [("S-1", "north/planning")]))
        hub, north = await lose_both(whole)
        whole.start("old north", "south")
        await until(gathering_of(hub).is_over)
        await south.arises(south.event("S-1", 2, flow="south-bulk"))
        await until(lambda: holds(states(north, "north/planning"), {1: "in_doubt", 2: "pending"}))


async def test_a_site_waits_for_a_hub_that_waits_itself(tmp_path: Path) -> None:
    async with estatewide(tmp_path, targets=_OWN_TARGET, second="south") as whole:
        await copy_both(whole)
        await grow(whole, 1)
        await until(lambda: holds(states(whole.agents["south"], "south/wms"), {1: "pending"}))
        hub, north = await lose_both(whole)
        whole.start("old north")
        await until(lambda: holds(_looked_at(gathering_of(hub)), ["south"]))
        calls = whole.wires["old north"].calls
        await _answered(whole, lambda: calls.count("pull") > 2)
        assert not await gathering_of(north).is_over()
        whole.start("south")
        await until(gathering_of(hub).is_over)
        await _answered(whole, gathering_of(north).is_over)
        assert await states(north, "north/planning") == {1: "in_doubt"}


async def _answered(whole: Estatewide, claim: Callable[[], object]) -> None:
    """Have the hub answer every pull at once until `claim` holds."""

    def look() -> object:
        whole.hub.wake(whole.agents)
        return claim()

    await until(look)


async def test_a_restored_site_waits_for_what_waits_at_the_hub_for_an_estate(tmp_path: Path) -> None:
    async with estatewide(tmp_path, targets=_OWN_TARGET) as whole:
        await copy_both(whole)
        other = an_estate(targets=_OWN_TARGET, owner="somebody")

        def adopt(connection: sqlite3.Connection) -> None:
            estates.adopt(connection, other.estate, now=1)

        hub, north = whole.agents[HUB], whole.agents["north"]
        north.compiled = other
        await north.database.write(adopt)
        await grow(whole, 1)
        await until(lambda: holds(hub.rows("SELECT count(*) FROM unapplied"), [(1,)]))
        await rest(whole, "north", "south")
        restored = await put_back(whole, "north", "old north")
        whole.start("old north")
        calls = whole.wires["old north"].calls
        await _answered(whole, lambda: calls.count("pull") > 2)
        assert not await gathering_of(restored).is_over()
        await whole.stop("old north")
        for agent in (hub, restored):
            await agent.database.write(adopt)
        whole.start("old north")
        await _answered(whole, gathering_of(restored).is_over)
        assert await states(restored, "north/planning") == {1: "in_doubt"}
        assert await states(hub, "hq/erp") == {1: "pending"}


async def test_a_hub_that_is_lost_again_gets_back_what_a_restored_site_had_back_from_it(tmp_path: Path) -> None:
    async with estatewide(tmp_path, targets=_OWN_TARGET) as whole:
        await copy_both(whole)
        await grow(whole, 1)
        await until(lambda: holds(states(whole.agents["south"], "south/wms"), {1: "pending"}))
        await rest(whole, "north", "south")
        north = await put_back(whole, "north", "old north")
        whole.start("old north", "south")
        await _answered(whole, gathering_of(north).is_over)
        await grow(whole, 2)
        await until(lambda: holds(states(whole.agents["south"], "south/wms"), {1: "pending", 2: "pending"}))
        await rest(whole, "old north", "south")
        hub = await put_back(whole, HUB, "old hub")
        whole.start("old north", "south")
        await until(gathering_of(hub).is_over)
        assert list((await states(hub, "hq/erp")).items()) == [(1, "in_doubt"), (2, "in_doubt")]
