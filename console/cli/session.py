"""What the options of every command come to: which agent is meant, and how answers are written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from console.cli.output import Output

if TYPE_CHECKING:
    from agent.control.client import ControlClient
    from state.model.errors import ConfigError, NotConnectedError

_LONGEST_TOKEN_FILE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of `distctl`."""

    socket: Path | None
    data: Path | None
    site: str | None
    on_command_line: frozenset[str] = frozenset()  # which of the three above; the others are from the environment
    token_file: Path | None = None
    output: Output

    def socket_path(self, site: str | None = None) -> Path:
        """The agent's socket: named, in the named data folder, of the named site, or of the only agent here.

        What stands on the command line overrules all of the environment: `--site` means that site, whatever `DISTCTL_DATA` says.
        Where no agent of that site is here, the only agent that is may be its hub. `site` is one that the command itself names.
        """
        from agent.control.endpoint import data_folder, socket_in

        if self.socket is not None and self._is_meant("socket"):
            return self.socket
        if self.data is not None and self._is_meant("data"):
            return socket_in(self.data)
        wanted = site or (self.site if self._is_meant("site") else None)
        if not wanted:
            return _only_socket()
        own = socket_in(data_folder(wanted))
        found = own if own.exists() else _socket_of_a_hub(wanted)
        if found is None and self.data is not None:
            raise _overruled(wanted, own, self.data)
        return found or own

    def _is_meant(self, name: str) -> bool:
        return name in self.on_command_line or not self.on_command_line

    def data_path(self, site: str) -> Path:
        """The data folder of the agent of `site`."""
        from agent.control.endpoint import data_folder

        return self.data or data_folder(site)

    def client(self, site: str | None = None) -> ControlClient:
        """A client of the agent that is meant, reached through its hub where that is the one here.

        `site` is the one that the command itself names. The answer of another site's agent is refused.
        """
        from agent.control.client import ControlClient

        wanted = site or (self.site if self._is_meant("site") else None)
        return ControlClient(self.socket_path(site), site=wanted, token=self._token())

    def _token(self) -> str | None:
        """The token to ask with: that of the file, else that of `DISTCTL_TOKEN`; None asks as the account."""
        if self.token_file is None:
            return os.environ.get("DISTCTL_TOKEN") or None
        try:
            token = self.token_file.read_bytes()[:_LONGEST_TOKEN_FILE].decode("ascii", "replace").strip()
        except OSError as error:
            raise _no_token_file(f"{self.token_file} cannot be read: {error.strerror}") from None
        if not token:
            raise _no_token_file(f"{self.token_file} is empty")
        return token


def _overruled(site: str, socket: Path, data: Path) -> NotConnectedError:
    from state.model.errors import NotConnectedError

    hint = f"--site overrules DISTCTL_DATA: where {data} is that of its hub, say so: --data {data} --site {site}"
    return NotConnectedError(f"no agent of {site} answers at {socket}", hint=hint, code="no-agent")


def _no_token_file(message: str) -> ConfigError:
    from state.model.errors import ConfigError

    return ConfigError(message, hint="name a file that holds a token and nothing else", code="token-file")


def session_of(context: typer.Context) -> Session:
    """The session of a command that runs."""
    session = context.find_object(Session)
    if session is None:
        raise RuntimeError("a command was run without the options of `distctl`")
    return session


def _socket_of_a_hub(site: str) -> Path | None:
    """The only agent here, which may be the hub of that site. Raises `ConfigError` where there are several."""
    from state.model.errors import ConfigError

    found = _sockets()
    if len(found) > 1:
        sites = ", ".join(path.parent.parent.name for path in found)
        hint = f"name the --data folder of the hub; here are {sites}"
        raise ConfigError(f"no agent of {site} runs here", hint=hint, code="which-agent")
    return found[0] if found else None


def _sockets() -> list[Path]:
    from agent.control.endpoint import socket_in, state_home

    return sorted(socket_in(folder) for folder in _folders(state_home()) if socket_in(folder).exists())


def _only_socket() -> Path:
    from agent.control.endpoint import state_home
    from state.model.errors import ConfigError, NotConnectedError

    found = _sockets()
    if len(found) == 1:
        return found[0]
    if not found:
        hint = "Start one with `distctl agent run`, or say where it is with --data, --site or --socket"
        raise NotConnectedError(f"no agent runs under {state_home()}", hint=hint, code="no-agent")
    sites = ", ".join(path.parent.parent.name for path in found)
    raise ConfigError("more than one agent runs here", hint=f"name one with --site: {sites}", code="which-agent")


def _folders(home: Path) -> list[Path]:
    try:
        return [folder for folder in home.iterdir() if folder.is_dir()]
    except OSError:
        return []
