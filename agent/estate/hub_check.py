"""Whether an estate of several sites can be kept in step: who its hub is, and who needs one."""

from __future__ import annotations

from collections.abc import Iterator

from agent.estate.findings import Finding
from agent.estate.load import Loaded
from state.model.estate import Estate, FlowSpec
from state.model.suggestion import suggestion
from state.model.visible import shown


def check_hub(loaded: Loaded, estate: Estate) -> Iterator[Finding]:
    """A hub and a second agent are sites of the estate, and what goes from one site to another needs a hub."""
    hub = estate.settings.hub
    if hub is None:
        for flow in estate.flows.values():
            yield from _without_a_hub(loaded, estate, flow)
        return
    if loaded.settings_file is None:
        return
    for key, site in (("site", hub.site), ("second", hub.second)):
        if site is not None and site not in estate.sites:
            message = f"there is no site {shown(site)}"
            yield loaded.settings_file.finding(
                ("hub", key), message, hint=suggestion(site, estate.sites), code="unknown-site"
            )
    if hub.second == hub.site:
        hint = "name another site: what it keeps is what the hub is rebuilt from"
        yield loaded.settings_file.finding(("hub", "second"), "the hub keeps no copy for itself", hint=hint, code="hub")


def _without_a_hub(loaded: Loaded, estate: Estate, flow: FlowSpec) -> Iterator[Finding]:
    source = estate.resolve(flow.source.system)
    for number, target in enumerate(flow.targets):
        reached = estate.resolve(target.system)
        if source is not None and reached is not None and source[0] != reached[0]:
            yield loaded.flow_files[flow.flow].finding(
                ("targets", number, "system"),
                f"{flow.flow} goes from site {source[0]} to site {reached[0]}, and the estate has no hub",
                hint=f"name it in estate.yaml: hub: {{site: {reached[0]}, url: https://host:7443}}",
                code="no-hub",
            )
