"""The systemd unit of an agent: hardened, with the credentials and folders that its site needs, and no start limit.

What it may touch follows from the estate: a secret `credential:NAME` becomes a `LoadCredential=`, a folder in which the `files`
connector works may be written, and everything else may not. systemd restarts an agent that failed and never gives up: a loop of
starts that come to nothing ends in safe mode, which is ours and can be asked why. Sources: systemd.exec(5), systemd.service(5).

A unit begins with a hash of itself: one that nobody touched since is written anew without asking, one that was edited is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from connectors.files.folder import sync_folder
from state.model.errors import ConfigError, ConflictError, DeniedError, DistctlError
from state.model.estate import Estate, SystemSpec
from state.model.ids import sha256

STATE_HOME: Final = Path("/var/lib/distctl")
UNIT_FOLDER: Final = Path("etc/systemd/system")
PACKAGED_FOLDER: Final = Path("usr/lib/systemd/system")
CREDENTIALS: Final = Path("/etc/distctl/credentials")

_HEAD: Final = re.compile(r"\A# sha256 ([0-9a-f]{64})\n")
_CREDENTIAL: Final = re.compile(r"credential:([A-Za-z0-9_.-]+)")
_VARIABLE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_HOMES: Final = tuple(map(Path, ("/home", "/root", "/run/user")))
_PRIVATE: Final = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108 - named because the service has its own
_PUT_ASIDE_BY_FILES: Final = ("archive", "quarantine")
_SHORTEST_STOP: Final = timedelta(seconds=90)
_LAST_PRIVILEGED_PORT: Final = 1023


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a unit is written from. Paths are absolute."""

    site: str
    program: Path
    estate: Path
    data: Path
    user: str | None  # None: an account that systemd makes for it
    memory: str = "2G"
    credentials: Path = CREDENTIALS
    credential_names: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # secrets that the environment holds: no unit can name them
    writable: tuple[Path, ...] = ()
    stop_within: timedelta = _SHORTEST_STOP
    binds_low_port: bool = False

    @property
    def name(self) -> str:
        """Of the unit."""
        return f"distctl-{self.site}.service"


def service_of(
    estate: Estate,
    site: str,
    *,
    home: Path,
    program: Path,
    data: Path | None,
    user: str | None,
    memory: str,
    credentials: Path,
    writable: Iterable[Path] = (),
) -> Service:
    """The service of a site's agent. `home` is the estate folder, `writable` what the service may write besides what it must.

    Raises `ConfigError` where a path cannot stand in a unit, or data lies where an account that systemd makes cannot keep it.
    """
    settings = list(_settings(estate, site))
    texts = [text for _, one in settings for text in _texts(one)]
    folders = {*writable, *(folder for spec, one in settings for folder in _folders(spec, one, home))}
    deadlines = [spec.limits.deadline for spec in estate.sites[site].systems.values()]
    service = Service(
        site=site,
        program=program,
        estate=home,
        data=data or STATE_HOME / site,
        user=user,
        memory=memory,
        credentials=credentials,
        credential_names=tuple(sorted({match[1] for text in texts if (match := _CREDENTIAL.fullmatch(text))})),
        variables=tuple(sorted({match[1] for text in texts if (match := _VARIABLE.fullmatch(text))})),
        writable=tuple(sorted(folders)),
        stop_within=max(_SHORTEST_STOP, max(deadlines) + timedelta(seconds=30)),
        binds_low_port=_binds_low_port(estate, site),
    )
    _refuse_odd_paths(service)
    if user is None and not service.data.is_relative_to(STATE_HOME):
        hint = f"Give the service an account with --user, or leave the data under {STATE_HOME}"
        raise ConfigError(f"an account that systemd makes cannot own {service.data}", hint=hint, code="service-data")
    return service


def unit_of(service: Service) -> str:
    """The text of the unit, its hash first."""
    body = "\n".join(_lines(service)) + "\n"
    return f"# sha256 {sha256(body.encode())}\n{body}"


def is_untouched(unit: str) -> bool:
    """Whether a unit is as some version of this module wrote it."""
    head = _HEAD.match(unit)
    return head is not None and head[1] == sha256(unit[head.end() :].encode())


def path_of(service: Service, root: Path | None) -> Path:
    """Where the unit goes: where administrators keep theirs, or in a package's `root` where packages do."""
    return Path("/") / UNIT_FOLDER / service.name if root is None else root / PACKAGED_FOLDER / service.name


def install(unit: str, path: Path, *, replace: bool) -> bool:
    """Write the unit; answers whether that changed anything.

    Raises `ConflictError` where a unit is there that somebody edited, and `replace` was not said; `DeniedError`, `DistctlError`
    where it cannot be written.
    """
    try:
        before = path.read_text(errors="replace") if path.exists() else None
        if before == unit:
            return False
        if before is not None and not replace and not is_untouched(before):
            hint = f"Keep the changes in a drop-in (`systemctl edit {path.name}`), then say --replace"
            raise ConflictError(f"{path} was edited by hand", hint=hint, code="unit-edited")
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(unit)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except PermissionError as error:
        hint = "Run it as root, or look at the unit with --print"
        raise DeniedError(f"{error.filename or path}: {error.strerror}", hint=hint, code="unit-folder") from error
    except OSError as error:
        raise DistctlError(f"{error.filename or path}: {error.strerror}", code="unit-folder") from error
    return True


def cautions(service: Service) -> Iterator[str]:
    """What a person has to know or to do before the unit can work."""
    for variable in service.variables:
        yield (
            f"the secret env:{variable} is not in the unit: put it into a file of mode 0600 and name that in a drop-in as "
            "EnvironmentFile=, or better use credential:"
        )
    for path in (service.program, service.estate, service.data, *service.writable):
        if _is_under(path, _PRIVATE):
            yield f"{path} lies where the service has a folder of its own (PrivateTmp): put it elsewhere"


# --- the text -----------------------------------------------------------------------------------------------------


def _lines(service: Service) -> Iterator[str]:
    yield "# Written by `distctl agent install`: run it again when the site's systems have changed."
    yield f"# Settings of your own belong into a drop-in: systemctl edit {service.name}"
    yield ""
    yield "[Unit]"
    yield f"Description=distctl agent of {service.site}"
    yield "Wants=network-online.target"
    yield "After=network-online.target"
    yield "# It is tried for ever: starts that come to nothing end in the agent's own safe mode, which can be asked why."
    yield "StartLimitIntervalSec=0"
    yield ""
    yield "[Service]"
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={' '.join(map(_argument, _command(service)))}"
    yield "# A store that was written by an older version is brought up to date first, which may take its time."
    yield "TimeoutStartSec=15min"
    yield f"TimeoutStopSec={service.stop_within.total_seconds():.0f}s"
    yield "WatchdogSec=30s"
    yield "Restart=on-failure"
    yield "# 2 s, then later each time up to a minute (systemd 254; older ones stay at 2 s)."
    yield "RestartSec=2s"
    yield "RestartSteps=6"
    yield "RestartMaxDelaySec=60s"
    yield "# Configuration, and another agent with this store: a person has to do something."
    yield "RestartPreventExitStatus=2 6"
    yield ""
    yield from _account(service)
    yield from _credentials(service)
    yield ""
    yield "NoNewPrivileges=yes"
    yield from _capabilities(service)
    yield "ProtectSystem=strict"
    yield f"ProtectHome={'read-only' if _needs_homes(service) else 'yes'}"
    yield from _may_write(service)
    yield "PrivateTmp=yes"
    yield "PrivateDevices=yes"
    yield "ProtectClock=yes"
    yield "ProtectControlGroups=yes"
    yield "ProtectHostname=yes"
    yield "ProtectKernelLogs=yes"
    yield "ProtectKernelModules=yes"
    yield "ProtectKernelTunables=yes"
    yield "ProtectProc=invisible"
    yield "KeyringMode=private"
    yield "LockPersonality=yes"
    yield "RemoveIPC=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    yield "RestrictNamespaces=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallErrorNumber=EPERM"
    yield ""
    yield f"MemoryMax={service.memory}"
    yield "TasksMax=256"
    yield "LimitNOFILE=65536"
    yield ""
    yield "[Install]"
    yield "WantedBy=multi-user.target"


def _command(service: Service) -> Iterator[str]:
    yield str(service.program)
    yield from ("--site", service.site, "--data", str(service.data))
    yield from ("agent", "run", "--estate", str(service.estate), "--log", "json")


def _account(service: Service) -> Iterator[str]:
    if service.user is None:
        yield "DynamicUser=yes"
    else:
        yield f"User={service.user}"
    if service.data.is_relative_to(Path("/var/lib")):
        yield f"StateDirectory={_word(service.data.relative_to('/var/lib'))}"
        yield "StateDirectoryMode=0750"
    yield "UMask=0027"


def _credentials(service: Service) -> Iterator[str]:
    for name in service.credential_names:
        yield f"LoadCredential={_word(f'{name}:{service.credentials / name}')}"


def _capabilities(service: Service) -> Iterator[str]:
    needed = "CAP_NET_BIND_SERVICE" if service.binds_low_port else ""
    yield f"CapabilityBoundingSet={needed}"
    yield f"AmbientCapabilities={needed}"


def _may_write(service: Service) -> Iterator[str]:
    """A folder that is missing is no reason not to start: the agent says so, by flow."""
    if not service.data.is_relative_to(Path("/var/lib")):
        yield f"ReadWritePaths={_word(service.data)}"
    for folder in service.writable:
        yield f"ReadWritePaths={_word(f'-{folder}')}"


def _needs_homes(service: Service) -> bool:
    return any(_is_under(path, _HOMES) for path in (service.program, service.estate, service.data, *service.writable))


def _is_under(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _argument(text: str) -> str:
    return _word(text).replace("$", "$$")


def _word(value: str | Path) -> str:
    """One word of a unit: percent signs are specifiers, blanks divide words, and quotes and backslashes are special."""
    text = str(value).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if re.search(r"[\s\"'\\;#]", text) else text


def _refuse_odd_paths(service: Service) -> None:
    for path in (service.program, service.estate, service.data, service.credentials, *service.writable):
        if not str(path).isprintable():
            raise ConfigError(f"the path {path!r} cannot stand in a unit", hint="Rename it", code="service-path")


# --- what the estate asks for -------------------------------------------------------------------------------------


def _settings(estate: Estate, site: str) -> Iterator[tuple[SystemSpec, dict[str, Any]]]:
    """The settings of each system of the site, and of each flow's end at one of them."""
    for system in estate.sites[site].systems.values():
        yield system, system.settings
    for flow in estate.flows.values():
        ends = [(flow.source.system, flow.source.settings), *((one.system, one.settings) for one in flow.targets)]
        for name, settings in ends:
            place = estate.resolve(name)
            if place is not None and place[0] == site:
                system = estate.system(*place)
                yield system, {**system.settings, **settings}


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)


def _folders(system: SystemSpec, settings: dict[str, Any], home: Path) -> Iterator[Path]:
    """Where the `files` connector moves, writes and puts aside."""
    if system.connector != "files" or "folder" not in settings:
        return
    folder = _joined(home, settings["folder"])
    yield folder
    for name in _PUT_ASIDE_BY_FILES:
        aside = _joined(folder, settings.get(name, ""))
        if not aside.is_relative_to(folder):
            yield aside


def _joined(folder: Path, part: object) -> Path:
    return Path(os.path.normpath(folder / str(part)))


def _binds_low_port(estate: Estate, site: str) -> bool:
    hub = estate.settings.hub
    return hub is not None and hub.site == site and int(hub.listen.rpartition(":")[2]) <= _LAST_PRIVILEGED_PORT
