"""Forecast: what is expected to be asked for, by bucket (X12 830, DELFOR, SLSFCT)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from state.model.canonical.entity import Entity, Record, Stock, joined_key, refuse, require, require_order
from state.model.scalars import Code, Instant, PlainDate, Text

ForecastType = Literal["firm", "planned"]
Measure = Literal["baseline", "override", "consensus"]


class ForecastOverride(Record):
    """Who changed the figure, why, and until when it holds."""

    owner: Code
    reason: Text
    expires: PlainDate


class Forecast(Entity):
    """The quantity expected from `bucket_start` to `bucket_end`, both days included."""

    entity: ClassVar[str] = "forecast"
    version: ClassVar[int] = 1

    sku: Code
    loc: Code
    customer: Code | None = None
    bucket_start: PlainDate
    bucket_end: PlainDate
    quantity: Stock
    type: ForecastType
    measure: Measure
    model: Code | None = None
    forecast_version: Code
    created_at: Instant
    horizon_start: PlainDate | None = None
    horizon_end: PlainDate | None = None
    override: ForecastOverride | None = None

    @property
    def business_key(self) -> str:
        """`sku/loc/customer/start/end`."""
        return joined_key(self.sku, self.loc, self.customer, self.bucket_start, self.bucket_end)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        require_order(self.bucket_start, self.bucket_end, names=("bucket_start", "bucket_end"))
        require_order(self.horizon_start, self.horizon_end, names=("horizon_start", "horizon_end"))
        if self.measure == "override":
            hint = "Say owner, reason and expiry: a figure changed by hand has all three"
            require(self.override, "a forecast of measure override needs the override", place="override", hint=hint)
        else:
            hint = "Set measure to override, or leave the override out"
            refuse(self.override, f"a {self.measure} has no override", place="override", hint=hint)
        return self
