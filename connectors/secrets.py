"""Secrets are named in settings and read where they are used: `env:NAME`, `file:path`, `credential:name`.

A secret never enters the estate, its hash, an error message or a log. `credential:` is systemd's LoadCredential, a file in
`$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from state.model.errors import ConfigError

LARGEST: Final = 64 * 1024
"""Bytes; a longer file is not a secret but a mistake in the path."""

SecretReference = Annotated[
    str,
    Field(
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|credential:[A-Za-z0-9_.-]+)$",
        max_length=1000,
        description="where the secret is, never the secret: env:NAME, file:path or credential:name",
    ),
]


def resolve(reference: str, *, home: Path) -> str:
    """The secret behind `reference`; a relative path starts at `home`. One line end after it is dropped.

    Raises `ConfigError` that names the reference, never what it holds.
    """
    kind, _, name = reference.partition(":")
    match kind:
        case "env":
            secret = os.environ.get(name, "")
        case "file":
            secret = _read(home / name, reference)
        case "credential":
            secret = _read(_credentials() / name, reference)
        case _:
            raise _missing(reference, "is no reference", "write env:NAME, file:path or credential:name")
    if not secret:
        raise _missing(reference, "is not set, or empty", "set it for the agent and start the agent again")
    return secret


def _credentials() -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(
            "there is no credentials directory",
            hint="credential: works under systemd with LoadCredential=; elsewhere use file: or env:",
            code="secret",
        )
    return Path(folder)


def _read(path: Path, reference: str) -> str:
    try:
        if not path.is_file():
            raise _missing(reference, "is not a file", "create it, readable by the agent only")
        if path.stat().st_size > LARGEST:
            raise _missing(reference, "is larger than 64 KiB", "name the file that holds the secret alone")
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _missing(reference, "is not UTF-8 text", "name the file that holds the secret as text") from None
    except OSError as error:
        raise _missing(reference, f"cannot be read: {error.strerror}", "let the agent's user read it") from None


def _missing(reference: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"the secret {reference} {what}", hint=hint, code="secret")
