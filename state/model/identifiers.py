"""Identifiers with their scheme: GS1 keys with verified check digits, and the numbers that partners use for things.

Sources: GS1 General Specifications 7.9 (check digit), ISO 6523 0060 (DUNS), NMFTA (SCAC), X12 I05/I06 (interchange id).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import ConfigDict, PlainValidator

from state.model.errors import BrokenRuleError
from state.model.scalars import Code, broken, code_text, settle

Scheme = Literal[
    "gtin-8", "gtin-12", "gtin-13", "gtin-14", "gln", "sscc", "duns", "scac", "isa",
    "vendor_part", "buyer_part", "manufacturer_part",
]  # fmt: skip

_DIGITS = re.compile(r"[0-9]+")
_SCAC = re.compile(r"[A-Z]{2,4}")
_ISA = re.compile(r"[0-9A-Z]{2}:[ -~]{1,15}")
_GTIN_LENGTHS: Final = (8, 12, 13, 14)


def check_digit(body: str) -> int:
    """The GS1 check digit that follows `body`: weights 3, 1, 3 ... from the right, filled up to a multiple of ten."""
    return -sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body))) % 10


def gtin(value: object) -> str:
    """A GTIN of 8, 12, 13 or 14 digits whose check digit is right."""
    return _gs1(value, "GTIN", _GTIN_LENGTHS)


def gtin14(value: object) -> str:
    """The GTIN filled up with zeros to 14 digits: the form in which GTINs of different lengths compare."""
    return gtin(value).zfill(14)


def gln(value: object) -> str:
    """A Global Location Number: 13 digits, the last one right."""
    return _gs1(value, "GLN", (13,))


def sscc(value: object) -> str:
    """A Serial Shipping Container Code: 18 digits, the last one right. Without the application identifier 00."""
    return _gs1(value, "SSCC", (18,))


def duns(value: object) -> str:
    """A D-U-N-S number: 9 digits without hyphens. Newer numbers follow no check digit, so none is verified."""
    if isinstance(value, str) and len(value) == 9 and _DIGITS.fullmatch(value):
        return value
    raise broken(
        "a DUNS number of 9 digits is needed", value, hint="Remove hyphens, keep leading zeros", code="bad-duns"
    )


def scac(value: object) -> str:
    """A Standard Carrier Alpha Code: 2 to 4 capitals."""
    if isinstance(value, str) and _SCAC.fullmatch(value):
        return value
    raise broken(
        "a SCAC of 2 to 4 capital letters is needed", value, hint="Look it up with the carrier", code="bad-scac"
    )


def interchange_id(value: object) -> str:
    """An X12 interchange identity as `qualifier:id` (`ZZ:ACMEWEST`), the id without its padding."""
    if isinstance(value, str) and _ISA.fullmatch(value) and value.rstrip() == value and value[3] != " ":
        return value
    rule = "an interchange id of a 2-character qualifier, a colon and 1 to 15 characters is needed"
    raise broken(rule, value, hint="Join ISA05 and ISA06 as in 'ZZ:ACMEWEST', without the padding", code="bad-isa")


def _gs1(value: object, name: str, lengths: tuple[int, ...]) -> str:
    if not (isinstance(value, str) and len(value) in lengths and _DIGITS.fullmatch(value)):
        counts = ", ".join(map(str, lengths[:-1])) + (" or " if lengths[1:] else "") + str(lengths[-1])
        hint = "Give it as text: a number loses leading zeros; remove blanks and hyphens"
        raise broken(f"a {name} of {counts} digits is needed", value, hint=hint, code=f"bad-{name.lower()}")
    expected = check_digit(value[:-1])
    if int(value[-1]) != expected:
        raise _wrong_check_digit(value, name, expected)
    return value


def _wrong_check_digit(value: str, name: str, expected: int) -> BrokenRuleError:
    return broken(
        f"the check digit of this {name} must be {expected} (GS1, modulo 10)",
        value,
        hint="A digit was mistyped or swapped: compare with the label or ask the partner; do not just change the last digit",
        code="bad-check-digit",
    )


def _of_length(length: int) -> Callable[[object], str]:
    return lambda value: _gs1(value, f"GTIN-{length}", (length,))


_RULES: Final[dict[Scheme, Callable[[object], str]]] = {
    "gtin-8": _of_length(8), "gtin-12": _of_length(12), "gtin-13": _of_length(13), "gtin-14": _of_length(14),
    "gln": gln, "sscc": sscc, "duns": duns, "scac": scac, "isa": interchange_id,
    "vendor_part": code_text, "buyer_part": code_text, "manufacturer_part": code_text,
}  # fmt: skip

Gtin = Annotated[str, PlainValidator(gtin, json_schema_input_type=str)]
Gln = Annotated[str, PlainValidator(gln, json_schema_input_type=str)]
Sscc = Annotated[str, PlainValidator(sscc, json_schema_input_type=str)]
Duns = Annotated[str, PlainValidator(duns, json_schema_input_type=str)]
Scac = Annotated[str, PlainValidator(scac, json_schema_input_type=str)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A number for a thing and the scheme that gives it meaning; `issuer` is whose number it is (a party), where that matters."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    scheme: Scheme
    value: Code
    issuer: Code | None = None

    def __post_init__(self) -> None:
        if self.scheme not in _RULES:
            hint = f"One of {', '.join(SCHEMES)}"
            raise broken("a known scheme is needed", self.scheme, hint=hint, code="unknown-scheme", place="scheme")
        settle(self, "value", _RULES[self.scheme])


SCHEMES: Final[tuple[str, ...]] = get_args(Scheme)
"""Every scheme, in the order of the documentation."""
