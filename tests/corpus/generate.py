"""The bad-input corpus: one seed, always the same files, each with the one outcome it must have."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.corpus.case import Case
from tests.corpus.csv_cases import csv_cases
from tests.corpus.json_cases import json_cases
from tests.corpus.xml_cases import xml_cases

_TOKENS = (
    b'"',
    b"'",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\0",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"<",
    b">",
    b"&",
    b"\xff",
    b"\xef\xbb\xbf",
)


def corpus(seed: int) -> list[Case]:
    """All files of one seed: CSV, JSON, JSON Lines and XML."""
    rng = Random(seed)
    return [*csv_cases(rng), *json_cases(rng), *xml_cases(rng)]


def mutations(raw: bytes, rng: Random, count: int) -> Iterator[bytes]:
    """`raw` with a byte changed, a token put in, a stretch left out or doubled. What becomes of it nobody can say."""
    for _ in range(count):
        at, end = sorted((rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)))
        yield rng.choice(
            (
                raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :],
                raw[:at] + rng.choice(_TOKENS) + raw[at:],
                raw[:at] + raw[end:],
                raw[:end] + raw[at:],
            )
        )
