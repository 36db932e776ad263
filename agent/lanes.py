"""Opens the lanes of an estate at the agent that works them."""

from __future__ import annotations

import sqlite3

from agent.estate.compiled import CompiledEstate, CompiledFlow, CompiledLane
from state.lanes import ensure_lane
from state.model.estate import Estate


def open_lanes(connection: sqlite3.Connection, compiled: CompiledEstate, *, site: str) -> None:
    """Open every lane to a system of `site`: what others owe is theirs to keep."""
    for flow in compiled.flows.values():
        for lane in flow.lanes:
            if lane.site == site:
                open_lane(connection, compiled.estate, flow, lane)


def open_lane(connection: sqlite3.Connection, estate: Estate, flow: CompiledFlow, lane: CompiledLane) -> None:
    """Open one lane, or bring it up to date."""
    shadow = lane.target.shadow_of
    ensure_lane(
        connection,
        flow=flow.spec.flow,
        target=lane.name,
        tier=flow.spec.tier,
        order_mode=flow.spec.order.mode,
        order_domain=f"shadow-{flow.spec.order_domain}" if shadow else flow.spec.order_domain,
        shadow_of="/".join(estate.resolve(shadow) or ("", shadow)) if shadow else None,
    )
