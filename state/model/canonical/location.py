"""Location: a place that holds, ships or receives goods (GLN, X12 N1, NAD)."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from state.model.canonical.address import Address
from state.model.canonical.entity import Entity
from state.model.identifiers import Gln
from state.model.scalars import Code, Flag, Text, broken

LocationType = Literal["site", "warehouse", "zone", "bin", "ship_to", "store"]

_ZONE = re.compile(r"UTC|[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z0-9_+-]*){1,2}")


def zone_name(value: object) -> str:
    """The form of an IANA time zone name (`Europe/Paris`, `UTC`). Whether this machine knows it is for `check` to say."""
    if isinstance(value, str) and len(value) <= 64 and _ZONE.fullmatch(value):
        return value
    hint = "Abbreviations such as CET or EST do not say when summer time begins"
    raise broken("an IANA time zone such as Europe/Paris is needed", value, hint=hint, code="bad-zone")


def _object(value: object) -> object:
    if isinstance(value, dict):
        return value
    raise broken("an object of system: role is needed", value, hint="roles: {erp: plant}", code="bad-roles")


class Location(Entity):
    """A place by its `loc`; `roles` says what each system calls it for (`{"wms": "depot", "erp": "plant"}`)."""

    entity: ClassVar[str] = "location"
    version: ClassVar[int] = 1

    loc: Code
    name: Text
    type: LocationType
    parent: Code | None = None
    gln: Gln | None = None
    address: Address | None = None
    timezone: Annotated[str, PlainValidator(zone_name, json_schema_input_type=str)]
    calendar: Code | None = None
    active: Flag
    roles: Annotated[dict[Code, Code], BeforeValidator(_object)] = Field(default_factory=dict)

    @property
    def business_key(self) -> str:
        """The location code."""
        return self.loc

    @model_validator(mode="after")
    def _is_not_its_own_parent(self) -> Self:
        if self.parent == self.loc:
            hint = "Name the place that contains it, or leave the parent out"
            raise broken(
                "a location cannot be its own parent", self.parent, hint=hint, code="own-parent", place="parent"
            )
        return self
