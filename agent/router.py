"""Which lanes an event is owed to. Pure: event and estate in, lanes out."""

from __future__ import annotations

from collections.abc import Sequence

from agent.estate.compiled import CompiledFlow, CompiledLane
from state.model.event import Event


def route(event: Event, flow: CompiledFlow) -> Sequence[CompiledLane]:
    """The lanes of `flow` that want the event. Raises `RejectedError` where a condition cannot be told."""
    return [lane for lane in flow.lanes if lane.wants(event)]
