"""Who an event goes to next. Pure."""

from __future__ import annotations

from collections.abc import Collection


def recipients(
    *, here: str, hub: str | None, second: str | None, wanted_at: Collection[str], came_from: str | None = None
) -> frozenset[str]:
    """The sites that an event which was admitted `here` is sent to.

    From where it arose it goes to the hub, always; from there to every site that wants it: where a target of it is, or where
    the event arose that it answers, and to the second agent, which keeps a copy of all that the hub has. `came_from` is the site
    that sent it here; None where it arose here, also where it was given back.
    """
    if hub is None:
        return frozenset()
    if here == hub:
        return frozenset((*wanted_at, *([second] if second else []))) - {here, came_from}
    return frozenset({hub}) if came_from is None else frozenset()
