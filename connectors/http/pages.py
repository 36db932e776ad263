"""Where the next page of a list is. Pure, but for the links that the client checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from connectors.http.client import Answer, HttpClient
from connectors.http.pointer import find_text
from connectors.http.settings import LinkHeader, LinkInBody, Offset, PageNumber, PageToken, Pagination

_LINK: Final = re.compile(r"<([^<>]*)>([^<]*)")
_IS_NEXT: Final = re.compile(r';\s*rel\s*=\s*"?(?:[^";]* )?next(?:[ ";]|$)', re.IGNORECASE)


def with_parameters(address: str, parameters: Mapping[str, str]) -> str:
    """The address with query parameters set, those of the same name replaced."""
    parts = urlsplit(address)
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in parameters]
    return urlunsplit(parts._replace(query=urlencode([*kept, *parameters.items()])))


def first_parameters(pagination: Pagination | None) -> dict[str, str]:
    """The query parameters of the first page."""
    match pagination:
        case PageNumber():
            return {pagination.parameter: str(pagination.first), **_size(pagination)}
        case Offset():
            return {pagination.parameter: "0", **_size(pagination)}
        case _:
            return {}


def next_address(
    pagination: Pagination | None,
    *,
    client: HttpClient,
    address: str,
    answer: Answer,
    document: object,
    page: int,
    count: int,
) -> str | None:
    """The address of the page after `page` (from 1), which held `count` records; None after the last.

    Raises `NotConnectedError` for a link to another server.
    """
    match pagination:
        case LinkInBody():
            link = find_text(document, pagination.pointer)
            return client.follow(link, current=address) if link else None
        case LinkHeader():
            link = link_to_next(answer.headers.get("link", ""))
            return client.follow(link, current=address) if link else None
        case PageToken():
            token = find_text(document, pagination.pointer)
            return with_parameters(address, {pagination.parameter: token}) if token else None
        case PageNumber():
            number = pagination.first + page
            return with_parameters(address, {pagination.parameter: str(number)}) if count >= pagination.size else None
        case Offset():
            skipped = page * pagination.size
            return with_parameters(address, {pagination.parameter: str(skipped)}) if count >= pagination.size else None
        case None:
            return None


def link_to_next(header: str) -> str:
    """The target of `rel="next"` in a Link header (RFC 8288); empty where there is none."""
    return next((match[1] for match in _LINK.finditer(header[:16_384]) if _IS_NEXT.search(match[2])), "")


def _size(pagination: PageNumber | Offset) -> dict[str, str]:
    return {} if pagination.size_parameter is None else {pagination.size_parameter: str(pagination.size)}
