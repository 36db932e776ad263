"""Agents hold each other's audits: what was cut off, rewritten or put back shows at the others, and decisions come back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.sync.audit_word import MOST_ROWS, AuditWord, bounded
from agent.sync.chains import differs, kind_of, last_common, rung_numbers
from agent.sync.wire import Pull, read
from state import audit, audit_breaks, audit_copies, identities, life, tokens
from state.audit import GENESIS, AuditHead, Row
from state.audit_breaks import Break, BreakKind
from state.model.people import Role
from state.tokens import NewToken
from tests.daemon.link_rig import HUB, AgentAt, Estatewide, estatewide, until
from tests.daemon.test_gathering import put_back

# --- the judgement, pure ------------------------------------------------------------------------------------------


def head(seq: int, chain: str = "a") -> AuditHead:
    return AuditHead(seq=seq, hash=(chain * 64)[:64])


@pytest.mark.parametrize(
    ("known", "found", "rungs", "answer"),
    [
        (head(120), head(120), [], False),
        (head(120), head(130), [], False),
        (GENESIS, head(7), [], False),
        (head(120), head(80), [], True),
        (head(120), head(120, "b"), [], True),
        (head(120), head(130), [head(120, "b"), head(80)], True),
        (head(120), head(130), [head(120), head(80)], False),
        (head(120), GENESIS, [], True),
    ],
)
def test_an_audit_that_cannot_go_through_what_was_known_of_it_differs(
    known: AuditHead, found: AuditHead, rungs: list[AuditHead], answer: bool
) -> None:
    assert differs(known, found, rungs) is answer


def test_only_a_new_life_may_go_back() -> None:
    assert kind_of(head(120), head(80), is_new_life=True) is BreakKind.RESTORED
    assert kind_of(head(120), head(80), is_new_life=False) is BreakKind.CUT
    assert kind_of(head(120), head(130), is_new_life=False) is BreakKind.REWRITTEN


@pytest.mark.parametrize("end", [0, 1, 2, 3, 100, 1_000_000])
def test_rungs_lead_back_to_the_beginning_in_few_steps_and_name_what_was_asked_for(end: int) -> None:
    numbers = rung_numbers(end, [end // 3, end + 5])
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) <= 65
    assert all(0 < number <= end for number in numbers)
    assert end < 3 or {end, end // 3} <= set(numbers)


@pytest.mark.parametrize("parted", [1, 2, 60, 99, 100])
def test_the_rungs_find_the_last_common_entry_to_within_the_distance_from_the_end(parted: int) -> None:
    rungs = [head(number, "a" if number <= parted else "b") for number in rung_numbers(100, [])]
    found = last_common(rungs, lambda seq: head(seq).hash)
    assert parted - (100 - parted) <= found <= parted


def test_a_word_comes_back_from_the_wire_as_it_was_said(whole_row: Row) -> None:
    word = AuditWord(head=head(1), seen=head(2), copied=GENESIS, rows=[whole_row])
    pull = Pull(version=1, epoch=1, nonce="1.a", attempt="x", audit=word)
    assert read(Pull, pull.model_dump(mode="json")).audit == word


def test_a_word_carries_no_more_than_a_frame_has_room_for(whole_row: Row) -> None:
    long = (*whole_row[:5], "r" * 100_000, *whole_row[6:])
    endless = (*whole_row[:5], "r" * 300_000, *whole_row[6:])
    assert len(bounded([long] * 3)) == 1
    assert bounded([endless]) == []
    assert len(bounded([whole_row] * MOST_ROWS)) == MOST_ROWS


@pytest.fixture
def whole_row() -> Row:
    return (1, 5, "ada", "deny", "agent x", "because, é", None, '{"a":1}', "", "{}", bytes(32), bytes(range(32)))


# --- over the link ------------------------------------------------------------------------------------------------


async def note(agent: AgentAt, *actions: str, actor: str = "ada", target: str = "lane x") -> None:
    """Somebody acts at an agent."""
    for action in actions:
        await agent.database.write(
            lambda connection, action=action: audit.append(  # type: ignore[misc]
                connection, at_ms=1, actor=actor, action=action, target=target, reason="a test"
            )
        )


async def cut(agent: AgentAt, *, keep: int) -> None:
    """What somebody with the file and a shell does, with the agent stopped: the end of the audit never was."""

    def unit(connection: sqlite3.Connection) -> None:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM audit WHERE seq > ?", (keep,))
        connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'audit'", (keep,))
        for _, sql in triggers:
            connection.execute(sql)

    await agent.database.write(unit)


async def ends(agent: AgentAt) -> AuditHead:
    return await agent.database.read(audit.head)


async def copied(agent: AgentAt, site: str) -> AuditHead:
    return await agent.database.read(lambda connection: audit_copies.end(connection, site))


async def breaks(agent: AgentAt) -> list[Break]:
    return await agent.database.read(audit_breaks.list_breaks)


async def lost(agent: AgentAt, site: str) -> list[str]:
    """The actions of the entries that lie beyond a break of that audit, newest first."""
    found = await agent.database.read(
        lambda connection: audit_copies.entries(connection, site, lost=True, before=2**62, limit=100)
    )
    return [one.entry.action for one in found]


def holds_all(whole: Estatewide, keeper: str, site: str) -> Callable[[], object]:
    """Whether one agent has a copy of the whole audit of another; looks for it by the next pull."""

    async def claim() -> bool:
        whole.hub.wake(["north", "south"])
        end = await ends(whole.agents[site])
        return end.seq > 0 and await copied(whole.agents[keeper], site) == end

    return claim


def says(whole: Estatewide, name: str, *kinds: BreakKind) -> Callable[[], object]:
    """Whether an agent knows of breaks of these kinds."""

    async def claim() -> bool:
        whole.hub.wake(["north", "south"])
        return [one.kind for one in await breaks(whole.agents[name])] == list(kinds)

    return claim


async def test_a_hub_keeps_the_audits_of_its_sites_and_its_second_agent_keeps_the_hubs(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        north, hub, south = whole.agents["north"], whole.agents[HUB], whole.agents["south"]
        await note(north, *["replay"] * (MOST_ROWS + 50))
        await note(hub, "invite", "deny")
        whole.start("north", "south")
        await until(holds_all(whole, HUB, "north"))
        await until(holds_all(whole, "south", HUB))
        await note(north, "hold")
        await until(holds_all(whole, HUB, "north"))
        assert await copied(north, HUB) == GENESIS, "a site that is not the second keeps the head alone"
        await until(lambda: _have_told_all(whole, "north"))
        assert await hub.database.read(lambda connection: audit_copies.verify(connection, "north")) is None
        assert await south.database.read(lambda connection: audit_copies.verify(connection, HUB)) is None
        assert [await breaks(agent) for agent in (north, hub, south)] == [[], [], []]


async def _have_told_all(whole: Estatewide, name: str) -> bool:
    """Whether a site and its hub know each other's head, and that the other does."""
    whole.hub.wake([name])
    site = whole.agents[name]
    told = await site.database.read(lambda connection: audit_copies.told(connection, HUB))
    return (told.head, told.held) == (await ends(whole.agents[HUB]), await ends(site))


async def test_an_audit_whose_end_was_cut_off_shows_at_both_ends_and_the_exchange_goes_on(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await note(north, "replay", "discard", "hold", "discard")
        whole.start("north")
        await until(holds_all(whole, HUB, "north"))
        await whole.stop("north")
        await cut(north, keep=2)
        await note(north, "resume")
        whole.start("north")
        await until(says(whole, HUB, BreakKind.CUT))
        await until(says(whole, "north", BreakKind.CUT))
        [at_hub], [at_site] = await breaks(hub), await breaks(north)
        assert (at_hub.site, at_hub.witness, at_hub.known.seq, at_hub.after, at_hub.found) == ("north", HUB, 4, 2, 3)
        assert (at_site.site, at_site.witness, at_site.known.seq) == ("north", HUB, 4)
        await until(holds_all(whole, HUB, "north"))
        assert await lost(hub, "north") == ["discard", "hold"]
        await until(lambda: _has_lost(north))
        assert await lost(north, "north") == ["discard", "hold"], "the hub gave back what was cut off"
        assert await whole.fence_of("north") == ("open", "")
        await north.arises(north.event("R-1", 1))
        await until(lambda: whole.is_in_step("north"))
        noticed = [row[0] for row in await hub.rows("SELECT action FROM audit WHERE action = 'notice'")]
        assert noticed == ["notice"], "once"


async def test_a_past_that_was_written_anew_shows_even_where_it_is_longer(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await note(north, *["replay"] * 10)
        whole.start("north")
        await until(holds_all(whole, HUB, "north"))
        await whole.stop("north")
        await cut(north, keep=7)
        await note(north, *["resume"] * 9)
        whole.start("north")
        await until(says(whole, HUB, BreakKind.REWRITTEN))
        await until(holds_all(whole, HUB, "north"))
        assert await lost(hub, "north") == ["replay"] * 3


async def test_an_entry_that_was_edited_before_it_left_is_named_and_nothing_behind_it_is_kept(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await note(north, "replay", "discard", "hold")
        await cut(north, keep=3)

        def edit(connection: sqlite3.Connection) -> None:
            connection.execute("DROP TRIGGER audit_refuses_update")
            connection.execute("UPDATE audit SET actor = 'grace' WHERE seq = 2")

        await north.database.write(edit)
        whole.start("north")
        await until(says(whole, HUB, BreakKind.DAMAGED))
        await until(says(whole, "north", BreakKind.DAMAGED))
        assert ((await breaks(hub))[0].found, (await copied(hub, "north")).seq) == (2, 1)
        await note(north, "resume")
        await until(lambda: _have_told_all(whole, "north"))
        assert [len(await breaks(agent)) for agent in (hub, north)] == [1, 1], "it is noticed once"


async def test_a_hub_that_was_cut_back_is_found_by_a_site_that_holds_its_head_alone(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        north, hub = whole.agents["north"], whole.agents[HUB]
        await note(hub, "deny", "revoke")
        whole.start("north")
        before = await until(lambda: _told(north))
        await whole.stop("north")
        await cut(hub, keep=1)
        whole.start("north")
        await until(says(whole, "north", BreakKind.CUT))
        await until(says(whole, HUB, BreakKind.CUT))
        [found] = await breaks(hub)
        assert (found.site, found.witness, found.known) == (HUB, "north", before)


async def _told(agent: AgentAt) -> AuditHead | None:
    """The hub's head as a site knows it, once the hub has met it."""
    told = await agent.database.read(lambda connection: audit_copies.told(connection, HUB))
    return told.head if told.head.seq >= 3 else None


def a_token(name: str, created_at: int = 0) -> NewToken:
    return NewToken(
        name=name,
        hash=name.encode().ljust(32),
        person="ada",
        roles=frozenset({Role.VIEWER}),
        sites=None,
        created_at=created_at,
        created_by="root",
        expires_at=created_at + 1000,
    )


async def test_what_was_decided_after_the_backup_comes_back_and_keeps_out_who_was_kept_out(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        hub, south = whole.agents[HUB], whole.agents["south"]
        for name in ("ci", "new-ci"):
            await hub.database.write(lambda connection, name=name: tokens.add(connection, a_token(name)))  # type: ignore[misc]
        whole.start("north", "south")
        await until(holds_all(whole, "south", HUB))
        for name in ("north", "south"):
            await whole.stop(name)
        await whole.copy(HUB, "old")
        whole.start("north", "south")
        hub = whole.agents[HUB]
        await note(hub, "deny", target="agent north")
        await note(hub, "revoke", target="token ci")
        await note(hub, "allow", target="agent west")
        await note(hub, "renew", target="agent south", actor="agent south")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("north")
        await whole.stop("south")
        ended = await ends(hub)
        restored = await put_back(whole, HUB, "old")
        assert (await ends(restored)).seq < ended.seq
        whole.start("south")
        await until(lambda: whole.denied == ["north"])
        [found] = [one for one in await breaks(restored) if one.witness == "south"]
        assert (found.site, found.kind, found.known) == (HUB, BreakKind.RESTORED, ended)
        beyond = await restored.database.read(lambda connection: audit_copies.count_beyond(connection, HUB, found.id))
        assert (beyond.last, beyond.decisions) == (ended.seq, 3)
        assert await lost(restored, HUB) == ["renew", "allow", "revoke", "deny"]
        standing = await restored.database.read(lambda connection: identities.find(connection, "north"))
        assert (standing.denied_until, standing.denied_reason) == (1, "a test")
        held = await restored.database.read(
            lambda connection: [token.name for token in tokens.list_tokens(connection, before=99, limit=9)]
        )
        assert held == ["new-ci"]
        again = await restored.rows(
            "SELECT actor, action, target FROM audit WHERE json_extract(details_json, '$.again')"
        )
        assert again == [("agent", "deny", "agent north"), ("agent", "revoke", "token ci")]
        assert [one.kind for one in await breaks(south)] == [BreakKind.RESTORED]
        assert await restored.database.read(audit.verify) is None
        await until(holds_all(whole, "south", HUB))


async def test_a_token_that_was_made_after_the_decision_stays(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        whole.start("south")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("south")
        await whole.copy(HUB, "old")
        whole.start("south")
        hub = whole.agents[HUB]
        await note(hub, "revoke", target="token ci")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("south")
        restored = await put_back(whole, HUB, "old")
        await restored.database.write(lambda connection: tokens.add(connection, a_token("ci", created_at=2)))
        whole.start("south")
        await until(lambda: _has_lost(restored))
        assert await restored.database.read(lambda connection: tokens.find_held(connection, "ci")) is not None


async def _has_lost(agent: AgentAt) -> bool:
    return bool(await lost(agent, agent.site))


async def test_a_site_gets_back_its_own_from_its_hub(tmp_path: Path) -> None:
    async with estatewide(tmp_path) as whole:
        await note(whole.agents["north"], "hold")
        whole.start("north")
        await until(holds_all(whole, HUB, "north"))
        await whole.copy("north", "old")
        await note(whole.agents["north"], "discard")
        await until(holds_all(whole, HUB, "north"))
        restored = await put_back(whole, "north", "old")
        whole.start("old")
        await until(lambda: _has_lost(restored))
        assert await lost(restored, "north") == ["discard"]
        assert [one.kind for one in await breaks(whole.agents[HUB])] == [BreakKind.RESTORED]


async def test_what_a_store_lost_that_was_rolled_back_as_a_file_is_listed_once_a_person_adopted_it(
    tmp_path: Path,
) -> None:
    async with estatewide(tmp_path) as whole:
        await note(whole.agents["north"], "hold")
        whole.start("north")
        await until(holds_all(whole, HUB, "north"))
        await whole.copy("north", "old")
        for action in ("discard", "replay", "resume"):  # each with a pull, which uses up a nonce
            await note(whole.agents["north"], action)
            await until(holds_all(whole, HUB, "north"))
        await whole.close("north")
        rolled_back = whole.agents["north"] = await whole.open("old", site="north")
        whole.start("old")
        await until(lambda: _is_fenced(whole, "north"))
        await whole.adopt("north")
        await until(lambda: _has_lost(rolled_back))
        assert await lost(rolled_back, "north") == ["resume", "replay", "discard"]
        assert [one.kind for one in await breaks(whole.agents[HUB])] == [BreakKind.RESTORED]


async def _is_fenced(whole: Estatewide, site: str) -> bool:
    return (await whole.fence_of(site))[0] == "fenced"


async def test_two_restores_in_a_row_forget_neither_of_the_lives_that_ended(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        whole.start("south")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("south")
        await whole.copy(HUB, "old")
        await whole.copy(HUB, "older")
        whole.start("south")
        await note(whole.agents[HUB], "hold")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("south")
        restored = await put_back(whole, HUB, "old")
        whole.start("south")
        await until(lambda: _has_lost(restored))
        await note(restored, "discard")
        await until(holds_all(whole, "south", HUB))
        await whole.stop("south")
        await whole.close("old")
        again = whole.agents[HUB] = await whole.open("older", site=HUB)
        await again.database.write(lambda connection: life.begin_epoch(connection, now=1, least=3))
        whole.start("south")
        await until(lambda: _has_lost_all(again, "hold", "discard"))


async def _has_lost_all(agent: AgentAt, *actions: str) -> bool:
    return set(actions) <= set(await lost(agent, agent.site))


async def test_a_hub_gives_its_entries_to_its_second_agent_alone_whoever_asks(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        await note(whole.agents[HUB], "deny")
        for site, given in (("north", 0), ("south", 2)):
            said = await whole.agents[site].database.write(whole.links[site]._hello)
            welcome = await whole.hub.hello(site, said.model_copy(update={"audit": AuditWord(copied=GENESIS)}))
            assert welcome.audit is not None
            assert min(len(welcome.audit.rows), 2) == given


async def test_an_agent_that_says_nothing_of_audits_is_left_in_peace(tmp_path: Path) -> None:
    async with estatewide(tmp_path, second="south") as whole:
        hub = whole.hub
        hello = whole.links["north"]._hello
        said = (await whole.agents["north"].database.write(hello)).model_copy(update={"audit": None})
        welcome = await hub.hello("north", said)
        assert (welcome.audit is not None, await breaks(whole.agents[HUB])) == (True, [])
