"""What a person at the hub asks of a site: given once, answered once, and told for what it is when the line breaks in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard

from agent.errand import LARGEST_BODY, Answered, Question
from agent.sync.errand_runner import REMEMBERED
from agent.sync.errands import ANSWER_BYTES, HERE_FOR, MOST_AT_ONCE, Errands, pack, unpack
from agent.sync.hub import LONGEST_WAIT
from agent.sync.wire import VERSION, Answer, Errand
from state import peers
from state.model.errors import DistctlError, InDoubtError, NotConnectedError, RejectedError
from state.model.people import Role, Scope, Vouched
from tests.daemon.link_rig import HUB, Estatewide, estatewide, until

ADA = Vouched(
    name="ada", person="ada", scope=Scope(token="ci", roles=frozenset({Role.VIEWER}), sites=None, issued_by="bo")
)


def a_question(method: str = "GET", *, seconds: float = 5.0) -> Question:
    return Question(method=method, target="/v1/status?x=%2F", caller=ADA, seconds=seconds)


def an_answer(errand: str, body: str = "{}") -> Answer:
    return Answer(version=VERSION, epoch=1, errand=errand, status=200, type="application/json", body=body)


# --- the hub's book -----------------------------------------------------------------------------------------------


class Book:
    """Errands of a hub on a clock that the test owns, and who waits for them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.errands = Errands(lambda: self.now)
        self.woken: list[str] = []
        self.errands.wake = self.woken.extend

    async def asks(self, method: str = "GET", *, seconds: float = 5.0) -> asyncio.Task[Answered]:
        """Somebody begins to wait."""
        task = asyncio.create_task(self.errands.ask("north", a_question(method, seconds=seconds)))
        await asyncio.sleep(0)
        return task

    def pulls(self, run: str = "r1", *taken: str) -> list[Errand]:
        """The north pulls; returns what it is given."""
        self.errands.hear("north", run)
        return self.errands.give("north", run, taken)


@pytest.fixture
def book() -> Book:
    return Book()


async def test_a_question_is_given_and_its_answer_is_the_callers(book: Book) -> None:
    book.pulls()
    asked = await book.asks()
    assert book.woken == ["north"]
    book.now = 2.0
    [errand] = book.pulls()
    assert (errand.method, errand.target, errand.seconds) == ("GET", "/v1/status?x=%2F", 3.0)
    assert (errand.name, errand.person) == ("ada", "ada")
    assert errand.token is not None
    assert (errand.token.name, errand.token.roles, errand.token.sites) == ("ci", ["viewer"], None)
    book.errands.answer("north", an_answer(errand.id, '"all is well"'))
    assert await asked == Answered(status=200, type="application/json", body=b'"all is well"')


async def test_a_site_that_is_not_there_is_told_at_once(book: Book) -> None:
    with pytest.raises(NotConnectedError, match="not connected"):
        await book.errands.ask("north", a_question())
    presence = book.errands.hear("north", "r1")
    book.now = HERE_FOR - 0.1
    assert book.errands.is_there("north")
    book.now = HERE_FOR
    assert not book.errands.is_there("north")
    later = book.errands.hear("north", "r1")
    book.errands.lose("north", presence)
    assert book.errands.is_there("north"), "it had come again"
    book.errands.lose("north", later)
    assert not book.errands.is_there("north")


async def test_an_agent_that_knows_no_errands_is_told_at_once(book: Book) -> None:
    book.pulls("")
    with pytest.raises(DistctlError, match="too old: it takes no errands") as refused:
        await book.errands.ask("north", a_question())
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_reply_that_was_lost_is_given_again_and_one_that_came_is_not(book: Book, method: str) -> None:
    book.pulls()
    asked = await book.asks(method)
    [errand] = book.pulls()
    assert [one.id for one in book.pulls()] == [errand.id]
    assert book.errands.has_for("north", "r1", ())
    assert not book.errands.has_for("north", "r1", (errand.id,))
    assert book.pulls("r1", errand.id) == []
    book.errands.answer("north", an_answer(errand.id))
    await asked


async def test_a_change_that_one_run_may_have_done_is_given_to_no_other(book: Book) -> None:
    book.pulls()
    asked = await book.asks("POST")
    assert len(book.pulls()) == 1
    assert book.pulls("r2") == []
    with pytest.raises(InDoubtError, match="began anew") as doubt:
        await asked
    assert doubt.value.exit_code == 10
    assert "distctl --site north audit list" in doubt.value.hint


async def test_a_question_is_put_to_the_next_run_too(book: Book) -> None:
    book.pulls()
    asked = await book.asks()
    [errand] = book.pulls()
    assert [one.id for one in book.pulls("r2")] == [errand.id]
    book.errands.answer("north", an_answer(errand.id))
    await asked


@pytest.mark.parametrize(
    ("method", "given", "kind"),
    [
        ("GET", False, NotConnectedError),
        ("POST", False, NotConnectedError),
        ("GET", True, NotConnectedError),
        ("POST", True, InDoubtError),
    ],
)
async def test_what_is_not_answered_in_time_is_in_doubt_only_where_something_may_have_changed(
    book: Book, method: str, given: bool, kind: type[DistctlError]
) -> None:
    book.pulls()
    asked = await book.asks(method, seconds=0.02)
    errands = book.pulls() if given else []
    with pytest.raises(kind, match=r"did not answer within 0\.02 s"):
        await asked
    assert book.pulls() == [], "nobody waits any more"
    for errand in errands:
        with pytest.raises(RejectedError, match="nobody waits"):
            book.errands.answer("north", an_answer(errand.id))


async def test_an_answer_is_taken_from_the_site_that_was_asked_and_has_it(book: Book) -> None:
    book.pulls()
    asked = await book.asks()
    [waiting] = book.errands._open
    with pytest.raises(RejectedError, match="nobody waits"):
        book.errands.answer("north", an_answer(waiting))  # which it was not given
    [errand] = book.pulls()
    for site, number in (("south", errand.id), ("north", "0" * 32)):
        with pytest.raises(RejectedError, match="nobody waits"):
            book.errands.answer(site, an_answer(number))
    assert not asked.done()
    book.errands.answer("north", an_answer(errand.id))
    book.errands.answer("north", an_answer(errand.id, "again"))
    assert (await asked).body == b"{}"


async def test_so_many_wait_for_a_site_and_no_more(book: Book) -> None:
    book.pulls()
    asked = [await book.asks() for _ in range(MOST_AT_ONCE)]
    with pytest.raises(NotConnectedError, match="32 calls wait for north already"):
        await book.errands.ask("north", a_question())
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert book.pulls() == []


@pytest.mark.parametrize("wrong", [{"status": 100}, {"status": 101}, {"type": "a\r\nx: 1"}, {"type": "a/\u20ac"}])
def test_an_answer_that_no_caller_could_be_given_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RejectedError, match=next(iter(wrong))):
        unpack(pack(an_answer("a" * 32).model_copy(update=wrong)))


def test_an_answer_travels_as_it_is_and_no_larger_than_agreed() -> None:
    worst = an_answer("a" * 32, '"' * LARGEST_BODY)
    assert unpack(pack(worst)) == worst
    for raw, code in (
        (b"", "malformed"),
        (b"{}", "malformed"),
        (zstandard.compress(b"[]"), "malformed"),
        (zstandard.compress(b"{"), "malformed"),
        (zstandard.compress(b'{"version": 1}'), "malformed"),
        (zstandard.compress(bytes(ANSWER_BYTES + 1)), "too-large"),
    ):
        with pytest.raises(RejectedError) as refused:
            unpack(raw)
        assert refused.value.code == code


# --- over a link --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[Estatewide]:
    """The north is up and pulls."""
    async with estatewide(folder) as whole:
        whole.start("north")
        await until(lambda: whole.errands.is_there("north"))
        yield whole


def asks(whole: Estatewide, method: str = "GET", *, seconds: float = 5.0) -> asyncio.Task[Answered]:
    return asyncio.create_task(whole.errands.ask("north", a_question(method, seconds=seconds)))


async def test_a_site_is_asked_on_its_own_pull_as_whom_the_hub_vouches_for(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        answered = await asks(whole)
        assert (answered.status, answered.body) == (200, b'"north"')
        [(site, question)] = whole.asked
        assert (site, question.target, question.caller) == ("north", "/v1/status?x=%2F", ADA)


async def test_the_hub_hears_how_a_site_stands_as_soon_as_it_has_done_what_it_was_asked(tmp_path: Path) -> None:
    """A person who had it drain sees that in the next list, and not ten seconds later."""
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, "POST")
        await until(lambda: whole.asked and whole.wires["north"].calls[-1] == "pull")
        before = whole.wires["north"].calls.count("pull")
        whole.may_answer.set()
        await waiting
        await until(lambda: whole.wires["north"].calls.count("pull") > before, seconds=LONGEST_WAIT / 2)


async def test_many_are_asked_beside_each_other(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = [asks(whole) for _ in range(20)]
        await until(lambda: len(whole.asked) == 20)
        whole.may_answer.set()
        assert {answered.body for answered in await asyncio.gather(*waiting)} == {b'"north"'}


async def test_the_reply_of_the_pull_is_lost(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.wires["north"].lost_replies = 1
        assert (await asks(whole, "POST")).body == b'"north"'
        assert len(whole.asked) == 1


async def test_the_answer_is_lost_and_sent_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, "POST")
        await until(lambda: whole.asked)
        whole.wires["north"].is_cut = True
        whole.may_answer.set()
        await asyncio.sleep(0.1)
        assert not waiting.done()
        whole.wires["north"].is_cut = False
        assert (await waiting).body == b'"north"'
        assert len(whole.asked) == 1


async def test_the_hub_has_the_answer_and_the_site_does_not_know(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, "POST")
        await until(lambda: whole.asked and whole.wires["north"].calls[-1] == "pull")
        whole.wires["north"].lost_replies = 1  # of the answer: the pull is held
        whole.may_answer.set()
        assert (await waiting).body == b'"north"'
        await until(lambda: whole.wires["north"].calls.count("answer") == 2 and not whole.runners["north"].taken)
        assert len(whole.asked) == 1


async def test_the_line_stays_cut_behind_the_change(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, "POST", seconds=0.3)
        await until(lambda: whole.asked)
        whole.wires["north"].is_cut = True
        whole.may_answer.set()
        with pytest.raises(InDoubtError):
            await waiting


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("GET", 2)])
async def test_a_site_dies_under_an_errand_and_starts_again(tmp_path: Path, method: str, times: int) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, method)
        await until(lambda: whole.asked)
        await whole.close("north")
        await whole.open("north")
        whole.may_answer.set()
        whole.start("north")
        if method == "POST":
            with pytest.raises(InDoubtError, match="began anew"):
                await waiting
        else:
            assert (await waiting).body == b'"north"'
        assert len(whole.asked) == times


async def test_a_fenced_site_answers_nobody(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        whole.may_answer.clear()
        waiting = asks(whole, "POST", seconds=0.5)
        await until(lambda: whole.asked)
        await whole.agents[HUB].database.write(
            lambda connection: peers.fence(connection, peers.ensure(connection, "north"), reason="cloned", detail="two")
        )
        whole.may_answer.set()
        with pytest.raises(InDoubtError):
            await waiting


async def test_a_site_does_nothing_twice_whatever_the_hub_gives(tmp_path: Path) -> None:
    async with linked(tmp_path) as whole:
        await asks(whole)
        runner = whole.runners["north"]
        await until(lambda: not runner.taken)
        [known] = runner._known
        errand = Errand(id=known, method="POST", target="/v1/x", seconds=1, name="ada")
        runner.take([errand, errand])
        assert runner.taken == []
        runner.take(errand.model_copy(update={"id": f"{number:032x}"}) for number in range(3))
        assert len(runner.taken) == 3
        await until(lambda: not runner.taken)
        runner._known.update(dict.fromkeys(map(str, range(2 * REMEMBERED))))
        runner.take([])
        assert len(runner._known) == REMEMBERED
