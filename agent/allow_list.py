"""What a site lets its hub do: `allow.yaml` in the agent's data folder, written by the site's own people.

It is read each time it is asked, so that an edit holds at once. Without the file everything is allowed. A file that cannot be
read, or that says what nobody understands, allows nothing: who wrote it wanted to forbid something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.estate.findings import Finding
from agent.estate.validation import complaints
from agent.estate.yaml_document import BYTES_LIMIT, read_yaml
from state.model.errors import DeniedError

FILE: Final = "allow.yaml"


class HubMay(BaseModel):
    """What the hub may do at this site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    estates: bool = Field(True, description="whether the estate is taken from the hub")
    connectors: frozenset[str] | None = Field(
        None, description="what an estate of the hub may use for the systems of this site; left out: any"
    )
    commands: bool = Field(True, description="whether a person at the hub may have something changed here")
    payloads: bool = Field(True, description="whether a person at the hub may read what events and records say")


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hub_may: HubMay


_ALL: Final = HubMay()
_NOTHING: Final = HubMay(estates=False, connectors=frozenset(), commands=False, payloads=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowList:
    """What a site's file says at this moment. Each `require_...` raises `DeniedError`, saying who can change it."""

    path: Path
    hub_may: HubMay = _ALL
    trouble: str = ""
    """What is wrong with the file; then nothing is allowed."""

    @classmethod
    def read(cls, data: Path) -> Self:
        """The file in the data folder as it is now. Never raises."""
        path = data / FILE
        try:
            with path.open("rb") as stream:
                raw = stream.read(BYTES_LIMIT + 1)
        except FileNotFoundError:
            return cls(path=path)
        except OSError as error:
            return cls(path=path, hub_may=_NOTHING, trouble=_useless(f"{path} cannot be read: {error.strerror}"))
        read = _read(str(path), raw)
        if isinstance(read, Finding):
            said = f"{read.place}: {read.message}" + (f". {read.hint}" if read.hint else "")
            return cls(path=path, hub_may=_NOTHING, trouble=_useless(said))
        return cls(path=path, hub_may=read)

    def require_estates(self) -> None:
        """The estate may be taken from the hub."""
        self._require(self.hub_may.estates, "this site takes no estate from the hub")

    def require_connectors(self, used: Iterable[str]) -> None:
        """An estate of the hub may use these connectors for the systems of this site."""
        allowed = self.hub_may.connectors
        forbidden = sorted(set(used) - allowed) if allowed is not None else []
        self._require(not forbidden, f"this site does not let the hub use {', '.join(forbidden)} here")

    def require_commands(self) -> None:
        """A person at the hub may have something changed here."""
        self._require(self.hub_may.commands, "this site lets nobody at the hub change anything here")

    def require_payloads(self) -> None:
        """A person at the hub may read what events and records of this site say."""
        self._require(self.hub_may.payloads, "this site lets nobody at the hub read what its events say")

    def _require(self, is_allowed: bool, otherwise: str) -> None:
        if not is_allowed:
            hint = "" if self.trouble else f"its own people decide that, in {self.path}"
            raise DeniedError(self.trouble or otherwise, hint=hint, code="not-allowed-here")


def _read(file: str, raw: bytes) -> HubMay | Finding:
    """What the file allows, or the first thing that is wrong with it."""
    document, findings = read_yaml(file, raw)
    if document is None or findings:
        return findings[0]
    try:
        return _Written.model_validate(document.value).hub_may
    except ValidationError as error:
        first = next(complaints(_Written, error, document.value))
        return document.finding(first.path, first.message, hint=first.hint, code=first.code, key=first.about_key)


def _useless(what: str) -> str:
    return f"nothing is allowed to the hub: {what}"
