"""What nobody can guess and no other store comes up with: nonces, attempts, errands, runs of a process."""

from __future__ import annotations

import secrets


def new_secret() -> str:
    """128 random bits, as 32 hexadecimal digits."""
    return secrets.token_hex(16)
