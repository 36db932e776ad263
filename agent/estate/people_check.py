"""What `check` says of the people of an estate: sites exist, an account has one person, names are free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.estate.findings import Finding, Severity
from agent.estate.load import Loaded
from agent.estate.yaml_document import Path, YamlDocument
from state.model.estate import Estate, PersonSpec
from state.model.people import RESERVED_NAMES
from state.model.suggestion import suggestion
from state.model.visible import shown

NOBODY: Final = 65_534
"""The uid of whoever has none in this user namespace (user_namespaces(7)): many at once."""


def check_people(loaded: Loaded, estate: Estate) -> Iterator[Finding]:
    """Everything that concerns `people` in estate.yaml beyond its form."""
    file = loaded.settings_file
    if file is None:
        return
    for person, spec in estate.settings.people.items():
        if person in RESERVED_NAMES:
            message, hint = f"{person} cannot be a person", "the audit means somebody else by it: choose another name"
            yield file.finding(("people", person), message, hint=hint, code="reserved-name", key=True)
        for site, uid in spec.uids.items():
            if uid == NOBODY:
                message = f"uid {uid} is nobody in particular"
                hint = "the kernel gives this number to every account that it cannot name: use the person's own"
                yield file.finding(("people", person, "uids", site), message, hint=hint, code="nobodys-account")
        if len(loaded.site_files) == len(estate.sites):  # a site whose file cannot be read is not to be called unknown
            yield from _unknown_sites(file, estate, person, spec)
    yield from _shared_accounts(file, estate)
    yield from _nobody_at_the_hub(file, estate)


def _nobody_at_the_hub(file: YamlDocument, estate: Estate) -> Iterator[Finding]:
    """Once there are people, a site answers at its hub's word to a person alone: root of the hub is nobody there."""
    people, hub = estate.settings.people, estate.settings.hub
    if not people or hub is None or any(hub.site in spec.uids for spec in people.values()):
        return
    message = f"nobody has an account at the hub {hub.site}, so `distctl --site` there is for tokens alone"
    hint = f"root of {hub.site} is nobody at another site: give those who are to ask from there `uids: {{{hub.site}: UID}}`"
    yield file.finding(("people",), message, hint=hint, code="nobody-at-the-hub", key=True, severity=Severity.WARNING)


def _unknown_sites(file: YamlDocument, estate: Estate, person: str, spec: PersonSpec) -> Iterator[Finding]:
    named: list[tuple[Path, str, bool]] = [(("people", person, "uids", site), site, True) for site in spec.uids]
    named += [
        (("people", person, "roles", number, "sites", place), site, False)
        for number, grant in enumerate(spec.roles)
        for place, site in enumerate(grant.sites or ())
    ]
    for path, site, is_key in named:
        if site not in estate.sites:
            message, hint = f"there is no site {shown(site)}", suggestion(site, estate.sites)
            yield file.finding(path, message, hint=hint, code="unknown-site", key=is_key)


def _shared_accounts(file: YamlDocument, estate: Estate) -> Iterator[Finding]:
    """One account of two people would make four eyes out of two."""
    owners: dict[tuple[str, int], str] = {}
    for person, spec in estate.settings.people.items():
        for site, uid in spec.uids.items():
            owner = owners.setdefault((site, uid), person)
            if owner != person:
                message = f"uid {uid} at {site} is already {owner}'s"
                hint = "an account is one person's: give each their own"
                yield file.finding(("people", person, "uids", site), message, hint=hint, code="shared-account")
