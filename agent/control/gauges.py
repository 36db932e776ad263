"""The store's figures for Prometheus, from the same answer that `distctl status` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.control.schema import Counts, LaneRow, Status

_STATES: Final = tuple(name for name in Counts.model_fields if name != "waiting_behind")


def expose(status: Status) -> bytes:
    """The text exposition format. Lanes are labelled by flow and target, which the estate bounds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(status))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """One family a figure."""
        yield _deliveries(self._status.lanes)
        yield from _waits(self._status)
        yield GaugeMetricFamily(
            "distctl_dead_letters_open", "Dead letters that are open", value=self._status.open_dead_letters
        )
        yield GaugeMetricFamily(
            "distctl_audit_findings", "Audits that do not go on as they were known", value=len(self._status.audits)
        )
        yield GaugeMetricFamily("distctl_events_last", "Number of the last event taken in", value=self._status.events)


def _deliveries(lanes: Iterable[LaneRow]) -> Metric:
    family = GaugeMetricFamily("distctl_deliveries", "Deliveries by state", labels=("flow", "target", "state"))
    for lane in lanes:
        for state in _STATES:
            family.add_metric((lane.flow, lane.target, state), getattr(lane, state))
    return family


def _waits(status: Status) -> Iterator[Metric]:
    waits = GaugeMetricFamily(
        "distctl_lane_wait_seconds", "How long the oldest due key waits", labels=("flow", "target")
    )
    behind = GaugeMetricFamily(
        "distctl_deliveries_waiting_behind",
        "Pending deliveries behind one of their key that a person must decide",
        labels=("flow", "target"),
    )
    breakers = GaugeMetricFamily("distctl_target_unreachable", "1 while a target's breaker is open", labels=("target",))
    for lane in status.lanes:
        wait = (status.as_of - lane.due_since).total_seconds() if lane.due_since else 0.0
        waits.add_metric((lane.flow, lane.target), wait)
        behind.add_metric((lane.flow, lane.target), lane.waiting_behind)
    for target, breaker in sorted({(lane.target, lane.breaker) for lane in status.lanes}):
        breakers.add_metric((target,), float(breaker != "closed"))
    yield waits
    yield behind
    yield breakers
