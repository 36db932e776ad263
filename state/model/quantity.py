"""Quantities: a value, its unit, and the same amount in the base unit of the product.

Units are codes of UN/ECE Recommendation 20 (measures) and 21 (packages). A measure converts by the factor of its dimension;
a package (case, pallet) has no factor of its own: what it holds is said by the product, as `pack_factor` or `base_value`.
That is the guard against four metres received as four kilometres: a base value that contradicts the factor is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, GetCoreSchemaHandler, PlainValidator, SkipValidation
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from state.model.errors import BrokenRuleError
from state.model.pairs import remembered_pairs
from state.model.scalars import DECIMAL_PLACES, Exact, Positive, broken, exact, positive, settle

Dimension = Literal["count", "mass", "length", "area", "volume", "time", "package"]

_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_PLACE: Final = Decimal(1).scaleb(-DECIMAL_PLACES)


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: code, English name, dimension, and its size in the reference unit of the dimension (packages: 0)."""

    code: str
    name: str
    dimension: Dimension
    factor: Decimal
    spellings: tuple[str, ...] = ()


# Reference units: one, kilogram, metre, square metre, litre, second. Imperial factors are exact by definition (NIST SP 811).
_MEASURES: Final[dict[Dimension, str]] = {
    "count": """
        C62 1 one: unit units
        EA 1 each: ea pcs pc ST
        H87 1 piece: pce PCE
        PR 2 pair
        DZN 12 dozen: DZ dz
        CEN 100 hundred
        GRO 144 gross
        MIL 1000 thousand""",
    "mass": """
        MGM 0.000001 milligram: mg
        GRM 0.001 gram: g GR
        KGM 1 kilogram: kg KG kilo
        TNE 1000 tonne: t TN
        ONZ 0.028349523125 ounce: oz OZ
        LBR 0.45359237 pound: lb lbs LB
        CWA 45.359237 hundredweight (US)
        STN 907.18474 short ton
        LTN 1016.0469088 long ton""",
    "length": """
        MMT 0.001 millimetre: mm MM
        CMT 0.01 centimetre: cm CM
        DMT 0.1 decimetre: dm
        MTR 1 metre: m meter MR
        KMT 1000 kilometre: km kilometer
        INH 0.0254 inch: in IN
        FOT 0.3048 foot: ft FT LF
        YRD 0.9144 yard: yd YD
        SMI 1609.344 mile: mi""",
    "area": """
        MMK 0.000001 square millimetre: mm2
        CMK 0.0001 square centimetre: cm2
        MTK 1 square metre: m2 sqm
        INK 0.00064516 square inch: in2 SI
        FTK 0.09290304 square foot: ft2 sqft SF
        YDK 0.83612736 square yard: yd2 SY""",
    "volume": """
        CMQ 0.001 cubic centimetre: cm3 ccm
        MLT 0.001 millilitre: ml ML
        CLT 0.01 centilitre: cl
        DLT 0.1 decilitre: dl
        LTR 1 litre: l liter LT
        DMQ 1 cubic decimetre: dm3
        HLT 100 hectolitre: hl
        MTQ 1000 cubic metre: m3 cbm
        INQ 0.016387064 cubic inch: in3 CI
        FTQ 28.316846592 cubic foot: ft3 CF
        YDQ 764.554857984 cubic yard: yd3
        OZA 0.0295735295625 fluid ounce (US): floz
        PTL 0.473176473 liquid pint (US): PT
        QTL 0.946352946 liquid quart (US): QT
        GLL 3.785411784 gallon (US): gal GA
        GLI 4.54609 gallon (UK)
        BLL 158.987294928 barrel (US): bbl""",
    "time": """
        SEC 1 second: s
        MIN 60 minute: min
        HUR 3600 hour: h HR
        DAY 86400 day: d DA
        WEE 604800 week: WK""",
}

# Recommendation 21. Left out on purpose: KG (keg), CA (can) and PL (pail), which half the world writes for something else.
_PACKAGES: Final = """
    BG 0 bag
    BX 0 box: box
    CR 0 crate
    CS 0 case: case CA
    CT 0 carton: carton CTN
    DR 0 drum
    PA 0 packet
    PC 0 parcel
    PK 0 package: pack pkg
    PX 0 pallet: pallet PF PL PAL
    RL 0 reel
    RO 0 roll: roll
    SA 0 sack
    TU 0 tube"""


def _table() -> dict[str, Unit]:
    blocks: dict[Dimension, str] = {**_MEASURES, "package": _PACKAGES}
    rows = [(dimension, row) for dimension, block in blocks.items() for row in block.strip().splitlines()]
    return {unit.code: unit for unit in (_unit(dimension, row) for dimension, row in rows)}


def _unit(dimension: Dimension, row: str) -> Unit:
    named, _, spellings = row.partition(":")
    code, factor, name = named.split(maxsplit=2)
    return Unit(code=code, name=name, dimension=dimension, factor=Decimal(factor), spellings=tuple(spellings.split()))


UNITS: Final = MappingProxyType(_table())
"""Every unit that is accepted, by code."""

_CODE_BY_SPELLING: Final = {word: unit.code for unit in UNITS.values() for word in (unit.name, *unit.spellings)}


def unit_code(value: object) -> str:
    """A known unit code, written exactly so (`KGM`); near misses are suggested, never taken."""
    if isinstance(value, str) and value in UNITS:
        return value
    raise broken("a unit code of UN/ECE Rec 20 or 21 is needed", value, hint=_suggestion(value), code="unknown-unit")


UnitCode = Annotated[str, PlainValidator(unit_code, json_schema_input_type=str)]


def convert(value: Decimal, source: str, target: str) -> Decimal:
    """`value` in `source` units as `target` units, rounded half-even to 10 places where the factor does not divide."""
    if source == target:
        return value
    old, new = UNITS[unit_code(source)], UNITS[unit_code(target)]
    if old.dimension != new.dimension or old.dimension == "package":
        raise _no_factor(old, new)
    exact_or_near = _WIDE.divide(_WIDE.multiply(value, old.factor), new.factor)
    return exact(_shortest(_WIDE.quantize(exact_or_near, _PLACE)))


def can_convert(source: str, target: str) -> bool:
    """Whether `convert` has a factor between two known units."""
    dimension = UNITS[source].dimension
    return source == target or (dimension == UNITS[target].dimension and dimension != "package")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """`value` in `unit`, and where known the same amount as `base_value` in `base_unit` (12 cases = 144 each).

    `pack_factor` is how many base units one `unit` holds. Base value and base unit come together and agree with the pack
    factor exactly, and with the factor of the dimension as far as rounding goes: to the places the base value has, and within
    one part in a thousand. Values may be negative (a correction); fields of entities say where they may not.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    # Every way of making one passes __post_init__, so pydantic is told not to check a second time.
    value: SkipValidation[Exact]
    unit: SkipValidation[UnitCode]
    base_value: SkipValidation[Exact | None] = None
    base_unit: SkipValidation[UnitCode | None] = None
    pack_factor: SkipValidation[Positive | None] = None

    def __post_init__(self) -> None:
        settle(self, "value", exact)
        settle(self, "unit", unit_code)
        if self.base_value is not None or self.base_unit is not None or self.pack_factor is not None:
            _settle_base(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_read_pair, handler(source))

    @classmethod
    def of(cls, value: Decimal | int | str, unit: str) -> Quantity:
        """`value` in `unit`, without a base."""
        return cls(value=exact(value), unit=unit)

    def to(self, unit: str) -> Quantity:
        """The same amount in another unit: by the factor of the dimension, or by the base that this quantity carries."""
        if not can_convert(self.unit, unit_code(unit)) and self.base_value is not None and self.base_unit is not None:
            return Quantity(value=convert(self.base_value, self.base_unit, unit), unit=unit)
        return Quantity(value=convert(self.value, self.unit, unit), unit=unit)

    def packed(self, pack_factor: Decimal | int | str, base_unit: str) -> Quantity:
        """This quantity with its base filled in from what one unit holds."""
        factor = positive(pack_factor)
        base = exact(_shortest(_WIDE.multiply(self.value, factor)))
        return Quantity(value=self.value, unit=self.unit, base_value=base, base_unit=base_unit, pack_factor=factor)


_read_pair: Final = remembered_pairs(Quantity, "value", "unit")


def _settle_base(quantity: Quantity) -> None:
    base_value, base_unit, factor = quantity.base_value, quantity.base_unit, quantity.pack_factor
    if base_value is None or base_unit is None:
        hint = "Give both base_value and base_unit, or neither and no pack_factor"
        alone = base_unit if base_value is None else base_value
        raise broken("base value and base unit come together", alone, hint=hint, code="half-base")
    settle(quantity, "base_unit", unit_code)
    settle(quantity, "base_value", exact)
    if factor is not None:
        settle(quantity, "pack_factor", positive)
    _check_base(quantity, exact(base_value), base_unit, quantity.pack_factor)


def _check_base(quantity: Quantity, base_value: Decimal, base_unit: str, factor: Decimal | None) -> None:
    if factor is not None and _WIDE.multiply(quantity.value, factor) != base_value:
        raise _contradiction(quantity, _WIDE.multiply(quantity.value, factor))
    if can_convert(quantity.unit, base_unit):
        expected = convert(quantity.value, quantity.unit, base_unit)
        if not _is_rounding_of(base_value, expected):
            raise _contradiction(quantity, expected)


def _is_rounding_of(written: Decimal, expected: Decimal) -> bool:
    """Whether `written` is `expected` at the places it has (0.454 for 0.45359237), and within one part in a thousand."""
    rounded = _WIDE.quantize(expected, Decimal(1).scaleb(_places(written)))
    return rounded == written and abs(written - expected) * 1000 <= abs(expected)


def _places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _shortest(value: Decimal) -> Decimal:
    short = _WIDE.plus(value).normalize(_WIDE)
    return short if _places(short) <= 0 else short.quantize(Decimal(1), context=_WIDE)


def _contradiction(quantity: Quantity, expected: Decimal) -> BrokenRuleError:
    return broken(
        f"base_value must be what {quantity.value} {quantity.unit} are: {_shortest(expected):f} {quantity.base_unit}",
        quantity.base_value,
        hint="One of the two units or the pack factor is wrong: compare with the delivery paper before changing anything",
        code="base-contradicts",
        place="base_value",
    )


def _no_factor(old: Unit, new: Unit) -> BrokenRuleError:
    if "package" in (old.dimension, new.dimension):
        hint = "Only the product knows what a package holds: give base_value, base_unit and pack_factor"
    else:
        hint = f"{old.name} is a unit of {old.dimension}, {new.name} of {new.dimension}"
    return broken(f"{old.code} must convert to {new.code}", old.code, hint=hint, code="no-factor")


def _suggestion(value: object) -> str:
    if not isinstance(value, str):
        return "Give the code as text, such as EA, KGM, MTR or CS"
    code = _near(value[:32])
    return (
        f"Did you mean {code} ({UNITS[code].name})?"
        if code
        else "Map the partner's unit to a code such as EA, KGM, MTR or CS"
    )


def _near(word: str) -> str | None:
    exactly = _CODE_BY_SPELLING.get(word) or _CODE_BY_SPELLING.get(word.strip().lower()) or _without_x(word)
    if exactly:
        return exactly
    upper = word.strip().upper()
    if upper in UNITS:
        return upper
    near = get_close_matches(upper, UNITS, 1, 0.6)
    if near:
        return near[0]
    named = get_close_matches(word.lower(), _CODE_BY_SPELLING, 1, 0.75)
    return _CODE_BY_SPELLING[named[0]] if named else None


def _without_x(word: str) -> str | None:
    """EN 16931 writes packages with a leading X (`XBX`), so that they cannot clash with Recommendation 20."""
    unit = UNITS.get(word[1:]) if word[:1] == "X" else None
    return unit.code if unit and unit.dimension == "package" else None
