"""What a site makes of a bundle: judged before it counts, given back where it does not work, not tried again by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.estate.compiled import CompiledEstate, compile_estate
from agent.identity.authority import Authority
from agent.identity.certificates import make_key
from agent.identity.private_files import make_private_folder, write_private
from agent.identity.seal import Seal
from agent.identity.site import join, write_hub
from agent.site_estate import REVERT_AFTER, SiteEstate
from agent.start_count import StartCount
from state import audit, bundles, estates
from state.bundles import Bundle, BundleState
from state.database import Database
from state.model.errors import ConfigError
from state.model.estate import Estate, hash_of
from state.model.ids import EstateHash
from state.testing import NOON, FrozenClock, temporary_database
from tests.daemon.link_rig import an_estate

FOLDER = an_estate(owner="the folder")
OTHER = an_estate(owner="the hub")


class Site:
    """The estate of the site `north`, enrolled, with a folder; what the hub hands out is put straight into its store."""

    def __init__(self, data: Path, database: Database) -> None:
        self.data = data
        self.database = database
        self.authority = Authority.open(data / "ca", estate="acme", known=None, now=NOON)
        self.folder: CompiledEstate | None = FOLDER
        self.rehearsed: list[EstateHash] = []
        self.source = self.restarted()
        key = make_key()
        folder = data / "identity"
        make_private_folder(folder)
        certificate = self.authority.certify_agent(key.public_key(), site="north", enrolled_at=1, now=NOON)
        write_private(folder / "agent.pem", join(key, certificate, self.authority.pem))
        write_hub(folder, "https://hub.example:7443")

    def restarted(self) -> SiteEstate:
        """The same after a start of the agent."""
        return SiteEstate(
            self.database,
            site="north",
            data=self.data,
            folder=None,
            read_folder=self._read_folder,
            clock=FrozenClock(NOON),
        )

    def _read_folder(self) -> CompiledEstate:
        if self.folder is None:
            raise ConfigError("there is no folder")
        return self.folder

    async def rehearse(self, compiled: CompiledEstate) -> None:
        self.rehearsed.append(compiled.estate.hash)
        if compiled.estate.flows["reco"].owner == "nobody":
            raise ConfigError("the connector does not open")
        if compiled.estate.flows["reco"].owner == "a defect":
            raise KeyError("whatever")

    async def comes(self, estate: Estate | CompiledEstate, *, sealed_as: Estate | None = None) -> Bundle:
        """The hub hands out its next bundle, sealed for its own estate and environment."""
        estate = estate.estate if isinstance(estate, CompiledEstate) else estate
        return await self.comes_as(estate.hash, estate.to_json(), sealed_as or estate)

    async def comes_as(self, known: EstateHash, document: bytes, sealed_as: Estate) -> Bundle:
        last = await self.database.read(bundles.last)
        bundle = Bundle(
            number=(last.number if last else 0) + 1,
            estate=known,
            adopted_by="ada",
            adopted_at=NOON,
            state=BundleState.CAME,
        )
        seal = Seal.of_hub(self.authority.key, sealed_as.settings)
        bundle = replace(bundle, seal=seal.put_on(bundle))
        await self.database.write(lambda connection: estates.keep(connection, known, document))
        await self.database.write(partial(bundles.receive, bundle=bundle))
        return bundle

    async def judged(self, current: CompiledEstate = FOLDER) -> EstateHash | None:
        """The estate of the bundle that was found fit."""
        found = await self.source.judge(current, self.rehearse)
        return found[1].estate.hash if found else None

    async def takes(self, estate: CompiledEstate, *, state: BundleState = BundleState.TRIAL) -> Bundle:
        """The next bundle comes and is in force."""
        bundle = await self.comes(estate)
        await self.database.write(partial(bundles.settle, bundle=bundle, state=state))
        await self.source.take(bundle, state)
        return bundle

    async def audited(self) -> list[tuple[str, str]]:
        entries = await self.database.read(partial(audit.entries, before_seq=2**62, limit=9))
        return [(entry.action, entry.reason) for entry in entries]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with temporary_database(tmp_path, now=NOON) as database:
        yield Site(tmp_path, database)


def changed(**settings: Any) -> Estate:
    """The hub's estate with other settings."""
    written = OTHER.estate.model_dump(mode="json", exclude_defaults=True)
    return Estate.model_validate({**written, "settings": {**written["settings"], **settings}})


async def test_what_the_hub_sealed_for_this_estate_is_rehearsed_and_fit(site: Site) -> None:
    await site.comes(OTHER)
    assert await site.judged() == OTHER.estate.hash
    assert site.rehearsed == [OTHER.estate.hash]
    assert site.source.trouble == ""


@pytest.mark.parametrize(
    ("estate", "said"),
    [
        (changed(environment="production"), "it is of acme (production), and this agent runs acme (test)"),
        (changed(name="bolt"), "it is of bolt (test)"),
        (changed(hub={"site": "south", "url": "https://other.example:7443"}), "another hub than hq"),
        (changed(hub=None), "another hub than hq"),
        (an_estate(north="elsewhere").estate, "it has no site north"),
        (an_estate(owner="nobody").estate, "the connector does not open"),
        (an_estate(owner="a defect").estate, "KeyError"),
    ],
    ids=["environment", "name", "hub", "no hub", "site", "rehearsal", "defect"],
)
async def test_what_does_not_fit_is_refused_with_its_reason_and_not_judged_again(
    site: Site, estate: Estate, said: str
) -> None:
    await site.comes(estate)
    assert await site.judged() is None
    assert said in site.source.trouble
    [(action, reason)] = await site.audited()
    assert action == "refuse"
    assert said in reason
    rehearsed = list(site.rehearsed)
    assert await site.judged() is None
    assert site.rehearsed == rehearsed, "nobody tries it a second time"


async def test_a_bundle_without_the_seal_of_the_own_hub_is_refused(site: Site) -> None:
    await site.comes(OTHER, sealed_as=changed(environment="production"))
    assert await site.judged() is None
    assert "seal of the hub" in site.source.trouble


async def test_an_estate_that_this_version_cannot_read_is_refused(site: Site) -> None:
    document = OTHER.estate.to_json().replace(b'{"flows"', b'{"deals":{},"flows"', 1)
    await site.comes_as(hash_of(document), document, OTHER.estate)
    assert await site.judged() is None
    assert "cannot be read" in site.source.trouble


async def test_what_the_site_forbids_is_refused_and_judged_again_when_a_person_asks(site: Site) -> None:
    (site.data / "allow.yaml").write_text("hub_may: {estates: false}")
    await site.comes(OTHER)
    assert await site.judged() is None
    assert "takes no estate from the hub" in site.source.trouble
    (site.data / "allow.yaml").write_text("hub_may: {connectors: [http]}")
    assert await site.source.reconsider("ada via hq")
    assert await site.judged() is None
    assert "does not let the hub use files" in site.source.trouble
    (site.data / "allow.yaml").unlink()
    assert await site.source.reconsider("ada via hq")
    assert await site.judged() == OTHER.estate.hash
    entries = await site.database.read(partial(audit.entries, before_seq=2**62, limit=9))
    assert [(one.actor, one.action) for one in reversed(entries)] == [
        ("agent", "refuse"),
        ("ada via hq", "reconsider"),
        ("agent", "refuse"),
        ("ada via hq", "reconsider"),
    ]


async def test_the_folder_counts_until_a_bundle_does_and_again_when_the_first_is_given_back(site: Site) -> None:
    assert (await site.source.choose()).estate.hash == FOLDER.estate.hash
    bundle = await site.takes(OTHER)
    assert (await site.restarted().choose()).estate.hash == OTHER.estate.hash
    assert site.source.origin == f"{bundle.name} of the hub, on trial"
    back = await site.source.give_back("it could not be worked")
    assert back is not None
    assert back.estate.hash == FOLDER.estate.hash
    assert site.source.origin == ""
    assert await site.audited() == [("revert", "it could not be worked")]
    assert (await site.restarted().choose()).estate.hash == FOLDER.estate.hash


async def test_two_starts_that_came_to_nothing_go_back_to_the_good_one_and_count_anew(site: Site) -> None:
    good = await site.takes(OTHER, state=BundleState.GOOD)
    await site.takes(an_estate(owner="somebody else"))
    for _ in range(REVERT_AFTER):
        StartCount(site.data / "starts").begin()
    starts, source = StartCount(site.data / "starts"), site.restarted()
    starts.begin()
    estate = (await source.begin(starts)).estate.hash
    assert estate == good.estate
    assert source.in_force is not None
    assert source.in_force.number == good.number
    assert "2 starts under it came to nothing" in source.trouble
    assert (site.data / "starts").read_text() == "1\n", "safe mode is far again"


async def test_a_good_bundle_is_never_given_back(site: Site) -> None:
    await site.takes(OTHER)
    await site.source.be_well()
    starts = StartCount(site.data / "starts")
    starts.failed = REVERT_AFTER
    source = site.restarted()
    assert (await source.begin(starts)).estate.hash == OTHER.estate.hash
    assert await source.give_back("it could not be worked") is None


async def test_with_nothing_to_go_back_to_a_bundle_stays(site: Site) -> None:
    site.folder = None
    await site.takes(OTHER)
    assert await site.source.give_back("it could not be worked") is None
    assert (await site.restarted().choose()).estate.hash == OTHER.estate.hash


async def test_an_agent_that_is_nobodys_has_its_folder_whatever_its_store_says(site: Site) -> None:
    await site.takes(OTHER)
    (site.data / "identity" / "agent.pem").unlink()
    assert (await site.restarted().choose()).estate.hash == FOLDER.estate.hash


async def test_a_folder_that_differs_from_what_counts_is_said(site: Site, tmp_path: Path) -> None:
    source = SiteEstate(
        site.database,
        site="north",
        data=site.data,
        folder=tmp_path / "estate",
        read_folder=lambda: compile_estate(FOLDER.estate),
        clock=FrozenClock(NOON),
    )
    await source.take(await site.takes(OTHER), BundleState.GOOD)
    assert source.origin.endswith(f"the folder {tmp_path / 'estate'} differs and is not read")
