"""Postal addresses, with the country as ISO 3166-1 alpha-2."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import PlainValidator

from state.model.canonical.entity import Record, Several
from state.model.scalars import Code, Text, broken

_ASSIGNED: Final = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD
    CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG
    GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR
    KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF
    NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM
    SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE
    YT ZA ZM ZW
"""

COUNTRIES: Final = frozenset(_ASSIGNED.split())
"""ISO 3166-1 alpha-2, the 249 officially assigned codes."""

_OFTEN_MEANT: Final = {
    "UK": "GB",
    "EL": "GR",
    "USA": "US",
    "GER": "DE",
    "DEU": "DE",
    "SUI": "CH",
    "CHE": "CH",
    "D": "DE",
}


def country_code(value: object) -> str:
    """An ISO 3166-1 alpha-2 code in capitals."""
    if isinstance(value, str) and value in COUNTRIES:
        return value
    raise broken(
        "a country code of ISO 3166-1 (two capitals) is needed", value, hint=_suggestion(value), code="bad-country"
    )


def _suggestion(value: object) -> str:
    if not isinstance(value, str):
        return "Give the code as text, such as DE"
    meant = _OFTEN_MEANT.get(value) or next(iter(get_close_matches(value[:8].upper(), sorted(COUNTRIES), 1, 0.6)), None)
    return f"Did you mean {meant}?" if meant else "Map the partner's country to its code, such as DE"


Country = Annotated[str, PlainValidator(country_code, json_schema_input_type=str)]


class Address(Record):
    """Where something is: street lines, place and country."""

    lines: Several[Text] = ()
    postal_code: Code | None = None
    city: Text
    region: Text | None = None
    country: Country
