"""Text of records to bytes, and the refusal of what a format cannot hold."""

from __future__ import annotations

import codecs
from decimal import Decimal

from connectors.formats.records import Flaw, show
from connectors.formats.settings import Encoding
from state.model.errors import RejectedError


class TextEncoder:
    """Pieces of text to bytes; a byte order mark, where the encoding has one, comes once."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._encoder = codecs.getincrementalencoder(encoding)()

    def encode(self, text: str, number: int = 0) -> bytes:
        """The bytes of `text`, a part of record `number`. Raises `RejectedError` for a character the encoding lacks."""
        try:
            return self._encoder.encode(text)
        except UnicodeEncodeError as error:
            wrong = text[error.start : error.start + 1]
            surrogate = "\ud800" <= wrong <= "\udfff"
            hint = "Correct the text: half a surrogate pair is no character" if surrogate else "Set encoding: utf-8"
            rule = f"the text cannot be written as {self._encoding}"
            raise unwritable("encoding", rule, hint, number=number, text=wrong) from None


def unwritable(code: str, rule: str, hint: str, *, number: int = 0, field: str = "", text: str = "") -> RejectedError:
    """The refusal of one record by an encoder; `number` counts from 1, 0 is the part before the first record."""
    where = f"record {number}: " if number else ""
    return Flaw(code=code, rule=f"{where}{rule}", hint=hint, shown=show(text), field=show(field)).spoils_file()


def plain_number(value: int | Decimal) -> str:
    """Digits without exponent and without loss. Raises `ValueError` for NaN, infinities and absurd exponents."""
    if isinstance(value, int):
        return str(value)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError(f"{value} is not a plain number")
    return format(value, "f")


_LARGEST_EXPONENT = 1_000
