"""Party: a supplier, buyer, carrier or customer (ISA05-08, N1, NAD)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.address import Address
from state.model.canonical.entity import Entity, Record, Several, require, require_unique
from state.model.identifiers import Identifier
from state.model.money import CurrencyCode
from state.model.scalars import Code, Text, Whole

PartyRole = Literal["SU", "BY", "ST", "BT", "CA"]
"""X12 98: supplier, buyer, ship-to, bill-to, carrier."""

PartyStatus = Literal["active", "blocked", "closed"]

Incoterm = Literal["EXW", "FCA", "CPT", "CIP", "DAP", "DPU", "DDP", "FAS", "FOB", "CFR", "CIF"]
"""Incoterms 2020."""


class EdiProfile(Record):
    """How documents are exchanged with a party: standard, version, and how long its acknowledgements may take."""

    standard: Literal["x12", "edifact"]
    syntax_version: Code
    identity: Code
    functional_ack_hours: Whole | None = None
    order_ack_hours: Whole | None = None
    ship_notice_hours: Whole | None = None


class Party(Entity):
    """A company by its `party` code."""

    entity: ClassVar[str] = "party"
    version: ClassVar[int] = 1

    party: Code
    legal_name: Text
    roles: Several[PartyRole]
    status: PartyStatus
    identifiers: Several[Identifier] = ()
    address: Address | None = None
    currency: CurrencyCode | None = None
    terms: Text | None = None
    incoterm: Incoterm | None = None
    calendar: Code | None = None
    edi: Several[EdiProfile] = ()

    @property
    def business_key(self) -> str:
        """The party code."""
        return self.party

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        require(self.roles, "a party has at least one role", place="roles", hint="SU, BY, ST, BT or CA")
        require_unique([(one.scheme, one.value) for one in self.identifiers], place="identifiers", name="value")
        return self
