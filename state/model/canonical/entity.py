"""What all canonical entities share: frozen, strict, with room in `ext` for what a partner sends beyond the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from state.model.quantity import Quantity
from state.model.scalars import FreeJson, broken, sequence

MAXIMUM_PARTS = 10_000
"""Lines, packs or breaks of one document."""

_Item = TypeVar("_Item")


class Record(BaseModel):
    """A part of an entity. Unknown fields are refused by name; what a partner sends beyond the contract goes into `ext`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ext: FreeJson = Field(default_factory=dict)


class Entity(Record):
    """A document with a contract (`purchase-order/1`) and a business key, what people call it."""

    entity: ClassVar[str]
    version: ClassVar[int]
    names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Which fields name other documents: the path of a code (`lines.reco_id`), and the entity that it names."""

    @classmethod
    def contract(cls) -> str:
        """The name and version of the shape: `purchase-order/1`."""
        return f"{cls.entity}/{cls.version}"

    @property
    def business_key(self) -> str:
        """What people call the thing; equal for all revisions of it, different for different things."""
        raise NotImplementedError

    def references(self) -> tuple[tuple[str, str], ...]:
        """Other documents that this one names, as (entity, business key), each once: what a trace follows."""
        found = ((entity, key) for path, entity in self.names.items() for key in values_at(self, path, getattr))
        return tuple(dict.fromkeys(found))


Several = Annotated[tuple[_Item, ...], BeforeValidator(sequence), Field(max_length=MAXIMUM_PARTS)]
"""A list in the order given, at most 10,000 long."""


def joined_key(*parts: str | date | None) -> str:
    """A composite business key: parts joined by `/`, a missing one empty, `/` and `%` in a part as `%2F` and `%25`."""
    return "/".join("" if part is None else str(part).replace("%", "%25").replace("/", "%2F") for part in parts)


def values_at(whole: object, path: str, field_of: Callable[[Any, str], object]) -> Iterator[Any]:
    """What stands at a dotted path, in each item of the lists on the way; nothing where it is None."""
    name, _, rest = path.partition(".")
    part = field_of(whole, name)
    for one in part if isinstance(part, list | tuple) else (part,):
        if rest and one is not None:
            yield from values_at(one, rest, field_of)
        elif one is not None:
            yield one


def _at_least_nothing(quantity: Quantity) -> Quantity:
    if quantity.value >= 0:
        return quantity
    raise broken(
        "a quantity of zero or more is needed",
        f"{quantity.value:f}",
        hint="Correct the sign at the source; a return or a correction is a document of its own",
        code="negative",
        place="value",
    )


def _more_than_nothing(quantity: Quantity) -> Quantity:
    if quantity.value > 0:
        return quantity
    raise broken(
        "a quantity above zero is needed",
        f"{quantity.value:f}",
        hint="Leave out what is not wanted, or cancel it by its status",
        code="not-positive",
        place="value",
    )


Stock = Annotated[Quantity, AfterValidator(_at_least_nothing)]
"""A quantity of zero or more."""

Wanted = Annotated[Quantity, AfterValidator(_more_than_nothing)]
"""A quantity above zero."""


def require_unique(keys: Sequence[object], *, place: str, name: str) -> None:
    """Refuse two items of `place` with the same key, given in their order; the error names the second one."""
    if len(set(keys)) == len(keys):
        return
    seen: set[object] = set()
    for index, key in enumerate(keys):
        if key in seen:
            raise broken(
                f"each {name} must be there once",
                key,
                hint="Number them apart, or merge the two where the document is written",
                code="not-unique",
                place=f"{place}.{index}.{name}",
            )
        seen.add(key)


def require_order(first: date | None, second: date | None, *, names: tuple[str, str], within: str = "") -> None:
    """Refuse a second day before the first; either may be unknown."""
    if first is not None and second is not None and second < first:
        raise broken(
            f"{names[1]} must not be before {names[0]} ({first})",
            str(second),
            hint="Compare both with the source: one of them is wrong, or day and month are swapped",
            code="date-order",
            place=within + names[1],
        )


def require_each_order(first: date, seconds: Sequence[date | None], *, names: tuple[str, str], place: str) -> None:
    """Refuse an item of `place` whose day is before the first; each may be unknown."""
    for index, second in enumerate(seconds):
        if second is not None and second < first:
            require_order(first, second, names=names, within=f"{place}.{index}.")


def require_same_unit(*named: tuple[str, Quantity | None], within: str = "") -> None:
    """Refuse quantities that are to be compared but count in different units."""
    known = [(name, quantity) for name, quantity in named if quantity is not None]
    for name, quantity in known[1:]:
        if quantity.unit != known[0][1].unit:
            raise broken(
                f"{name} must be in the unit of {known[0][0]} ({known[0][1].unit})",
                quantity.unit,
                hint="Convert it in the mapping with the factor of the product",
                code="unit-mismatch",
                place=f"{within}{name}.unit",
            )


def require_at_most(value: Decimal, limit: Decimal, *, rule: str, place: str) -> None:
    """Refuse a value above its limit."""
    if value > limit:
        hint = "Compare both with the source: one of them is wrong or belongs to another line"
        raise broken(rule, f"{value:f}", hint=hint, code="over-limit", place=place)


def require(value: object, rule: str, *, place: str, hint: str) -> None:
    """Refuse a field that is empty where another field needs it."""
    if value is None or value == ():
        raise broken(rule, value, hint=hint, code="missing-field", place=place)


def refuse(value: object, rule: str, *, place: str, hint: str) -> None:
    """Refuse a field that is filled where another field leaves no room for it."""
    if value is not None:
        raise broken(rule, value, hint=hint, code="field-too-many", place=place)
