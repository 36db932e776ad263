"""Money: a decimal amount of an ISO 4217 currency, and prices, which may have more digits than the currency has coins.

`Money` is what is paid, so it has exactly the minor digits of its currency (12.5 EUR reads as 12.50; 12.505 EUR is refused).
`UnitPrice` is what a quantity is multiplied by: up to 10 places, per so many of a unit. Only `UnitPrice.times` rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, GetCoreSchemaHandler, PlainValidator, SkipValidation
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from state.model.errors import BrokenRuleError
from state.model.pairs import remembered_pairs
from state.model.quantity import Quantity, UnitCode, unit_code
from state.model.scalars import (
    INTEGER_DIGITS,
    Exact,
    NotNegative,
    Positive,
    broken,
    exact,
    not_negative,
    positive,
    settle,
)

_EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation])
_COMMERCIAL: Final = Context(prec=60, rounding=ROUND_HALF_UP, traps=[InvalidOperation])

_ONE: Final = Decimal(1)

# ISO 4217 list one, as published 2026-01-01, by digits of the minor unit.
_CODES_BY_DIGITS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY
        COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR
        IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD
        NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
        SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG""",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_NOT_PAYABLE: Final = frozenset(
    ("XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX")
)

_REPLACED: Final = {"HRK": "EUR", "BGN": "EUR", "ANG": "XCG", "SLL": "SLE", "ZWL": "ZWG", "CUC": "CUP", "RMB": "CNY"}

MINOR_DIGITS: Final = MappingProxyType({code: n for n, codes in _CODES_BY_DIGITS.items() for code in codes.split()})
"""Digits of the minor unit for every active currency that has one."""

_ONE_MINOR: Final = {code: Decimal(1).scaleb(-digits) for code, digits in MINOR_DIGITS.items()}


def currency_code(value: object) -> str:
    """An active ISO 4217 alphabetic code in capitals. Metals, funds without a minor unit, XTS and XXX are refused."""
    if isinstance(value, str) and value in MINOR_DIGITS:
        return value
    raise broken("an active ISO 4217 currency code is needed", value, hint=_suggestion(value), code="unknown-currency")


CurrencyCode = Annotated[str, PlainValidator(currency_code, json_schema_input_type=str)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An amount that can be paid, kept with exactly the minor digits of its currency. Currencies never mix."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    # Every way of making one passes __post_init__, so pydantic is told not to check a second time.
    amount: SkipValidation[Exact]
    currency: SkipValidation[CurrencyCode]

    def __post_init__(self) -> None:
        settle(self, "currency", currency_code)
        settle(self, "amount", exact)
        object.__setattr__(self, "amount", _in_minor_digits(self.amount, self.currency))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_read_money, handler(source))

    @classmethod
    def of(cls, amount: Decimal | int | str, currency: str) -> Money:
        """`amount` of `currency`, from a decimal in major units."""
        return cls(amount=exact(amount), currency=currency)

    @classmethod
    def of_minor(cls, minor: int, currency: str) -> Money:
        """`minor` cents (or the like) of `currency`."""
        return cls(amount=Decimal(minor).scaleb(-MINOR_DIGITS[currency_code(currency)], _EXACT), currency=currency)

    @property
    def minor(self) -> int:
        """The amount in minor units: 12.50 EUR is 1250, 12 JPY is 12."""
        return int(self.amount.scaleb(MINOR_DIGITS[self.currency], _EXACT))

    def __add__(self, other: Money) -> Money:
        return _computed(_EXACT.add(self.amount, self._same(other)), self.currency)

    def __sub__(self, other: Money) -> Money:
        return _computed(_EXACT.subtract(self.amount, self._same(other)), self.currency)

    def __mul__(self, times: int | Decimal) -> Money:
        return Money(amount=_EXACT.multiply(self.amount, exact(times)), currency=self.currency)

    def __neg__(self) -> Money:
        return Money(amount=self.amount.copy_negate(), currency=self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: Money) -> bool:
        return self.amount <= self._same(other)

    def __str__(self) -> str:
        return f"{self.currency} {self.amount:,f}"

    def _same(self, other: Money) -> Decimal:
        if self.currency == other.currency:
            return other.amount
        hint = "Convert one of them at a rate that somebody answers for"
        rule = f"amounts of {self.currency} and {other.currency} cannot be combined"
        raise broken(rule, str(other), hint=hint, code="mixed-currencies")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrice:
    """`amount` of `currency` for `per` of `unit` (1.2345 EUR per 100 EA). Without a unit: per unit of the priced quantity."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    amount: SkipValidation[NotNegative]
    currency: SkipValidation[CurrencyCode]
    per: SkipValidation[Positive] = _ONE
    unit: SkipValidation[UnitCode | None] = None

    def __post_init__(self) -> None:
        settle(self, "amount", not_negative)
        settle(self, "currency", currency_code)
        if self.per is not _ONE:
            settle(self, "per", positive)
        if self.unit is not None:
            settle(self, "unit", unit_code)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_read_price, handler(source))

    @classmethod
    def of(
        cls, amount: Decimal | int | str, currency: str, *, per: Decimal | int | str = 1, unit: str | None = None
    ) -> UnitPrice:
        """A price from decimals in any exact form."""
        return cls(amount=exact(amount), currency=currency, per=exact(per), unit=unit)

    def times(self, quantity: Quantity) -> Money:
        """What `quantity` costs, rounded half up to the minor unit: once, here, as an invoice line does."""
        counted = quantity.value if self.unit in (None, quantity.unit) else quantity.to(str(self.unit)).value
        cost = _COMMERCIAL.multiply(self.amount, counted)
        if self.per is not _ONE:
            cost = _COMMERCIAL.divide(cost, self.per)
        return _computed(_COMMERCIAL.quantize(cost, _ONE_MINOR[self.currency]), self.currency)


_read_money: Final = remembered_pairs(Money, "amount", "currency")
_read_price: Final = remembered_pairs(UnitPrice, "amount", "currency")


def total_of(amounts: Iterable[Money], currency: str) -> Money:
    """The sum, which is zero of `currency` for no amounts. Another currency among them is refused."""
    return sum(amounts, start=Money(amount=Decimal(0), currency=currency))


def _computed(amount: Decimal, currency: str) -> Money:
    """Money from an amount that is in minor digits already: only its size can be wrong."""
    if amount and amount.adjusted() >= INTEGER_DIGITS:
        exact(amount)
    money = object.__new__(Money)
    object.__setattr__(money, "amount", amount or amount.copy_abs())
    object.__setattr__(money, "currency", currency)
    return money


def _in_minor_digits(amount: Decimal, currency: str) -> Decimal:
    try:
        return _EXACT.quantize(amount, _ONE_MINOR[currency])
    except Inexact as error:
        raise _too_fine(amount, currency) from error


def _too_fine(amount: Decimal, currency: str) -> BrokenRuleError:
    digits = MINOR_DIGITS[currency]
    return broken(
        f"an amount of {currency} has at most {digits} digits after the point",
        f"{amount:f}",
        hint="Round it where it was computed; a price per unit may have more digits",
        code="too-many-digits",
        place="amount",
    )


def _suggestion(value: object) -> str:
    if not isinstance(value, str):
        return "Give the code as text, such as EUR"
    asked = value[:32].strip().upper()
    if asked in _NOT_PAYABLE:
        return f"{asked} has no minor unit and cannot be paid"
    if asked in _REPLACED:
        return f"{asked} was replaced by {_REPLACED[asked]}: convert at the fixed rate, or ask whose document it is"
    near = get_close_matches(asked, [code for code in MINOR_DIGITS if code[:2] == asked[:2]], 1, 0.6)
    return f"Did you mean {near[0]}?" if near else "Give three capitals, such as EUR; withdrawn codes are refused"
