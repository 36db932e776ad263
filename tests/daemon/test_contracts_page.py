"""The page of contracts says what the models say."""

from __future__ import annotations

from tests.daemon.contracts_page import PAGE, page


def test_the_page_of_contracts_is_written_from_the_models_that_are_in_force() -> None:
    again = "write it anew: python -m tests.daemon.contracts_page"
    assert PAGE.read_text(encoding="utf-8") == page(), again
