"""The systemd unit of an agent: what it grants follows from the estate, systemd understands it, and nobody's edits are lost."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.service_unit import Service, cautions, install, is_untouched, path_of, service_of, unit_of
from console.cli.app import main
from state.model.errors import ConfigError, ConflictError
from state.model.estate import Estate, EstateSettings, FlowSpec, HubSpec, SiteSpec
from state.model.event import Environment

HOME = Path("/etc/distctl/estate")
PROGRAM = Path("/opt/distctl/bin/distctl")
NEWER_KEYS = ("RestartSteps", "RestartMaxDelaySec")
"""Of systemd 254; an older one says that it leaves them alone."""


def an_estate(*, hub: HubSpec | None = None, deadline: str = "30s", **over: Any) -> Estate:
    systems: dict[str, Any] = {
        "planning": {"connector": "files"},
        "erp": {
            "connector": "http",
            "settings": {
                "base_url": "https://erp.example",
                "auth": {"kind": "bearer", "token": "credential:erp-token"},
                "headers": {"X-Client": "credential: no reference"},
            },
            "limits": {"deadline": deadline},
        },
        "wms": {"connector": "files", "settings": {"folder": "/srv/wms/in"}},
        "shop": {
            "connector": "http",
            "settings": {"auth": {"kind": "basic", "user": "u", "password": "env:SHOP_PASSWORD"}},
        },
        **over,
    }
    source = {"folder": "drop", "archive": "/srv/archive", "quarantine": "bad"}
    flow = FlowSpec.model_validate(
        {
            "flow": "reco",
            "owner": "planning@acme.example",
            "source": {"system": "planning", "settings": source, "fields": {"sku": "string"}},
            "contract": "replenishment-recommendation/1",
            "mapping": {"fields": {"sku": "record.sku"}},
            "targets": [{"system": "north/erp", "settings": {"headers": {"X-Key": "credential:erp-key"}}}],
        }
    )
    away = {"connector": "http", "settings": {"auth": {"kind": "bearer", "token": "credential:elsewhere"}}}
    return Estate(
        settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR", hub=hub),
        sites={
            "north": SiteSpec.model_validate({"site": "north", "systems": systems}),
            "south": SiteSpec.model_validate({"site": "south", "systems": {"far-erp": away}}),
        },
        flows={"reco": flow},
    )


def a_service(estate: Estate | None = None, **over: Any) -> Service:
    given: dict[str, Any] = {
        "home": HOME,
        "program": PROGRAM,
        "data": None,
        "user": "distctl",
        "memory": "2G",
        "credentials": Path("/etc/distctl/credentials"),
    }
    return service_of(estate or an_estate(), "north", **(given | over))


def settings_of(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_each_credential_of_the_sites_own_systems_is_loaded() -> None:
    settings = settings_of(unit_of(a_service()))
    assert settings["LoadCredential"] == [
        "erp-key:/etc/distctl/credentials/erp-key",
        "erp-token:/etc/distctl/credentials/erp-token",
    ]


def test_only_the_folders_that_the_site_works_in_may_be_written() -> None:
    settings = settings_of(unit_of(a_service(writable=[Path("/srv/backups")])))
    assert settings["ReadWritePaths"] == ["-/etc/distctl/estate/drop", "-/srv/archive", "-/srv/backups", "-/srv/wms/in"]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["StateDirectory"] == ["distctl/north"]


def test_systemd_starts_it_for_ever_and_safe_mode_ends_a_loop() -> None:
    settings = settings_of(unit_of(a_service()))
    assert settings["StartLimitIntervalSec"] == ["0"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == ["2 6"]
    assert (settings["Type"], settings["WatchdogSec"]) == (["notify"], ["30s"])
    assert settings["ExecStart"] == [
        f"{PROGRAM} --site north --data /var/lib/distctl/north agent run --estate {HOME} --log json"
    ]


@pytest.mark.parametrize(("deadline", "seconds"), [("30s", "90s"), ("5m", "330s")])
def test_a_stop_waits_for_the_longest_call(deadline: str, seconds: str) -> None:
    assert settings_of(unit_of(a_service(an_estate(deadline=deadline))))["TimeoutStopSec"] == [seconds]


def test_no_capability_is_left_but_the_one_that_a_hub_at_a_low_port_needs() -> None:
    assert settings_of(unit_of(a_service()))["CapabilityBoundingSet"] == [""]
    low = HubSpec(site="north", url="https://hq.example:443", listen="0.0.0.0:443")
    assert settings_of(unit_of(a_service(an_estate(hub=low))))["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    elsewhere = low.model_copy(update={"site": "south"})
    assert settings_of(unit_of(a_service(an_estate(hub=elsewhere))))["AmbientCapabilities"] == [""]


def test_homes_are_hidden_unless_something_needed_lies_there() -> None:
    assert settings_of(unit_of(a_service()))["ProtectHome"] == ["yes"]
    assert settings_of(unit_of(a_service(program=Path("/home/ops/bin/distctl"))))["ProtectHome"] == ["read-only"]


def test_an_account_that_systemd_makes_keeps_its_data_where_systemd_can_give_it() -> None:
    settings = settings_of(unit_of(a_service(user=None)))
    assert settings["DynamicUser"] == ["yes"]
    assert "User" not in settings
    with pytest.raises(ConfigError, match="cannot own /srv/distctl"):
        a_service(user=None, data=Path("/srv/distctl"))
    given = settings_of(unit_of(a_service(data=Path("/srv/distctl"))))
    assert "StateDirectory" not in given
    assert given["ReadWritePaths"][0] == "/srv/distctl"


def test_odd_characters_of_a_path_mean_themselves() -> None:
    unit = unit_of(a_service(home=Path('/srv/100% "mine" $HOME')))
    assert '--estate "/srv/100%% \\"mine\\" $$HOME" --log' in unit
    with pytest.raises(ConfigError, match="cannot stand in a unit"):
        a_service(home=Path("/srv/a\nExecStart=/bin/sh"))


def test_what_no_unit_can_solve_is_said() -> None:
    (secret, place) = cautions(a_service(writable=[Path("/tmp/exchange")]))
    assert secret.startswith("the secret env:SHOP_PASSWORD is not in the unit")
    assert place.startswith("/tmp/exchange lies where the service has a folder of its own")


# --- writing it ---------------------------------------------------------------------------------------------------


def test_a_unit_that_nobody_touched_is_written_anew_and_an_edited_one_is_kept(tmp_path: Path) -> None:
    path = path_of(a_service(), tmp_path)
    assert path == tmp_path / "usr/lib/systemd/system/distctl-north.service"
    first, second = unit_of(a_service()), unit_of(a_service(memory="4G"))
    assert install(first, path, replace=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not install(first, path, replace=False)
    assert install(second, path, replace=False)
    assert path.read_text() == second
    edited = second.replace("MemoryMax=4G", "MemoryMax=8G")
    path.write_text(edited)
    with pytest.raises(ConflictError, match="was edited by hand"):
        install(first, path, replace=False)
    assert path.read_text() == edited
    assert install(first, path, replace=True)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_unit_of_somebody_else_is_not_ours_to_replace(tmp_path: Path) -> None:
    path = tmp_path / "distctl-north.service"
    path.write_text("[Service]\nExecStart=/bin/true\n")
    assert not is_untouched(path.read_text())
    with pytest.raises(ConflictError):
        install(unit_of(a_service()), path, replace=False)


def distctl(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert distctl("init", tmp_path / "estate") == 0
    return tmp_path / "estate"


def test_the_command_shows_the_unit_or_writes_it_and_says_what_comes_next(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert distctl("agent", "install", "--estate", folder, "--print") == 0
    shown = capsys.readouterr()
    assert is_untouched(shown.out)
    assert f"careful: {folder} lies where" in shown.err
    assert distctl("agent", "install", "--estate", folder, "--root", tmp_path / "package") == 0
    (path,) = (tmp_path / "package").rglob("*.service")
    assert path.read_text() == shown.out
    assert capsys.readouterr().out == f"{path} is written\n"
    assert distctl("--site", "nowhere", "agent", "install", "--estate", folder, "--print") == 2
    path.write_text("# edited\n")
    assert distctl("agent", "install", "--estate", folder, "--root", tmp_path / "package") == 6


# --- systemd's own opinion ----------------------------------------------------------------------------------------


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    service = a_service(program=Path(sys.executable).resolve(), user="root", writable=[Path("/srv/a b")])
    path = tmp_path / service.name
    path.write_text(unit_of(service))
    judged = analyze("verify", "--man=no", path)
    complaints = [
        line
        for line in judged.stderr.splitlines()
        if service.name in line and not any(f"'{key}'" in line for key in NEWER_KEYS)
    ]
    assert complaints == []
    assert judged.returncode == 0, judged.stderr
    path.write_text(unit_of(service).replace("ProtectSystem=strict", "ProtectSystem=stern"))
    assert "ignoring: stern" in analyze("verify", "--man=no", path).stderr


def test_systemd_calls_its_exposure_low(tmp_path: Path) -> None:
    service = a_service(program=Path(sys.executable).resolve())
    path = tmp_path / service.name
    path.write_text(unit_of(service))
    judged = analyze("security", "--offline=true", "--threshold=25", "--no-pager", path)
    assert judged.returncode == 0, judged.stdout[-400:] + judged.stderr
