"""`distctl` as people and scripts run it: as a process, against a real socket, with written answers behind it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from agent.control.schema import (
    AuditRow,
    Condition,
    DeadLetterRow,
    DeliveryState,
    EventRow,
    FlowRow,
    InDoubtRow,
    LaneRow,
)
from agent.control.testing import NOW, WrittenDesk, served
from console.cli.app import COMMANDS, hoist, main
from console.exit_codes import ExitCode

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u200b\r\n\x00[red]=cmd()"
RAW_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def a_letter(number: int, **changed: object) -> DeadLetterRow:
    row = DeadLetterRow(
        id=number,
        kind="record",
        state="open",
        flow="recommendations",
        system="dc/planning",
        place="reco.csv line 14",
        field="qty",
        rule="a decimal number",
        code="not-a-number",
        shown="'4o'",
        message="qty is no number",
        hint="correct it and send it again",
        parked_at=NOW,
    )
    return row.model_copy(update=changed)


@pytest.fixture
def desk() -> WrittenDesk:
    return WrittenDesk(
        lane_rows=[
            LaneRow(
                flow="recommendations",
                target="dc/erp",
                tier=1,
                order="strict",
                state="open",
                breaker="open",
                breaker_reason="HTTP 503",
                pending=1200,
                in_doubt=1,
                parked=1,
                delivered=34567,
                due_since=NOW.replace(minute=0, hour=8),
            )
        ],
        flow_rows=[
            FlowRow(
                flow="recommendations",
                owner="planning@acme.example",
                tier=1,
                source="dc/planning",
                targets=["dc/erp"],
                in_force=True,
                records=40000,
                pending=1200,
            )
        ],
        event_rows=[
            EventRow(
                seq=2,
                id="ab" * 16,
                time=NOW,
                recorded_at=NOW,
                flow="recommendations",
                contract="replenishment-recommendation/1",
                op="snapshot",
                subject="R-1",
                source="dc/planning",
                place="reco.csv line 2",
                deliveries=[DeliveryState(delivery=1, target="dc/erp", state="delivered", reference="PO-9")],
            )
        ],
        letters=[a_letter(1)],
        doubts=[
            InDoubtRow(
                delivery=7,
                flow="recommendations",
                target="dc/erp",
                subject="R-7",
                event="cd" * 16,
                first_sent_at=NOW,
                attempts=2,
                detail="no answer in 5 s",
            )
        ],
        entries=[AuditRow(seq=1, at=NOW, actor="ada", action="hold", target="lane a/b", reason="stock", hash="0" * 64)],
    )


@pytest.fixture
def agent(desk: WrittenDesk, tmp_path: Path) -> Iterator[Path]:
    with served(desk, tmp_path / "data" / "control" / "agent.sock") as path:
        yield path


@dataclass(frozen=True)
class Answer:
    returncode: int
    stdout: str
    stderr: str


def distctl(*arguments: str | Path) -> Answer:
    """Run it in this process, which is many times faster."""
    out, talk = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(talk), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), talk.getvalue())


def as_a_process(*arguments: str | Path, **environment: str) -> Answer:
    command = [sys.executable, "-m", "console.cli.app", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, sep='\\n', file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


# --- starting up


def test_help_loads_nothing_heavy() -> None:
    run = "from console.cli.app import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    heavy = {"textual", "rich", "httpx", "uvicorn", "fastapi", "pydantic", "orjson", "agent", "connectors", "sqlite3"}
    assert loaded_by(run) & heavy == set()


def test_a_command_loads_neither_server_nor_screens(agent: Path) -> None:
    run = (
        f"from console.cli.app import main\ntry: main(['--socket', {str(agent)!r}, 'status'])\nexcept SystemExit: pass"
    )
    assert loaded_by(run) & {"textual", "httpx", "uvicorn", "fastapi", "connectors", "sqlite3", "aiosqlite"} == set()


def test_the_listed_help_is_the_commands_own() -> None:
    for name, (_, text) in COMMANDS.items():
        shown = " ".join(distctl(name, "--help").stdout.split())
        assert text in shown, name


def test_every_command_and_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    missing = [word for word in _words_of_help() if not re.search(rf"`[^`]*{re.escape(word)}\b[^`]*`", page)]
    assert missing == []


def _words_of_help() -> Iterator[str]:
    import typer.main

    from console.cli.app import app

    root = typer.main.get_command(app)
    for name in COMMANDS:
        command = root.get_command(None, name)  # type: ignore[attr-defined]  # a group of typer's
        children = getattr(command, "commands", {})
        for path, leaf in (
            [(f"distctl {name}", command)]
            if not children
            else [(f"distctl {name} {child}", leaf) for child, leaf in children.items()]
        ):
            yield path
            for parameter in leaf.params:
                if parameter.opts[0].startswith("-") and parameter.name != "help":
                    yield max(parameter.opts, key=len)


def test_exit_codes_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} |" in page


def test_the_version_is_said() -> None:
    assert re.fullmatch(r"distctl \d+\.\d+\.\d+\n", as_a_process("--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_the_commands(shell: str) -> None:
    assert "_DISTCTL_COMPLETE" in distctl("completion", shell).stdout


def test_completion_completes_commands_and_options() -> None:
    answer = as_a_process(_DISTCTL_COMPLETE="complete_bash", COMP_WORDS="distctl dlq l", COMP_CWORD="2")
    assert answer.stdout.split() == ["list"]
    answer = as_a_process(_DISTCTL_COMPLETE="complete_bash", COMP_WORDS="distctl sta", COMP_CWORD="1")
    assert answer.stdout.split() == ["status"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("distctl status --o", {"--output"}),
        ("distctl dlq list --s", {"--socket", "--site"}),
        ("distctl dlq list --f", {"--flow"}),
        ("distctl status --fail-on wait", {"waiting-behind"}),
        ("distctl status --watch --until-clear b", {"backlog"}),
    ],
)
def test_completion_completes_what_may_stand_there(typed: str, offered: set[str]) -> None:
    answer = as_a_process(_DISTCTL_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    assert set(answer.stdout.split()) == offered


def test_options_of_every_command_may_stand_anywhere(agent: Path) -> None:
    before = distctl("--socket", agent, "-o", "json", "flows")
    behind = distctl("flows", "-o", "json", "--socket", agent)
    assert before.stdout == behind.stdout
    assert json.loads(before.stdout)[0]["flow"] == "recommendations"


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert hoist(["trace", "--", "-o"]) == ["trace", "--", "-o"]
    assert hoist(["trace", "K", "-ojson", "--site=a", "--no-color"]) == [
        "-ojson",
        "--site=a",
        "--no-color",
        "trace",
        "K",
    ]
    assert hoist(["status", "-o"]) == ["-o", "status"]


# --- what is written


def test_status_as_a_table(agent: Path, desk: WrittenDesk) -> None:
    desk.conditions = [Condition(name="unreachable", count=1, text="unreachable: dc/erp")]
    answer = distctl("status", "--socket", agent)
    assert answer.stdout == (
        "dc-north (test) as of 2026-03-02 09:00:12Z, estate 01234567\n"
        "! unreachable: dc/erp\n"
        "FLOW             TARGET  STATE        BACKLOG  WAITS  DOUBT  PARKED    DONE  WHY\n"
        "recommendations  dc/erp  unreachable    1,201     1h      1       1  34,567  HTTP 503\n"
    )
    assert answer.stderr == ""


def test_a_trace_says_why_a_delivery_does_not_go(agent: Path, desk: WrittenDesk) -> None:
    parked = DeliveryState(delivery=1, target="dc/erp", state="parked", letter=3, reason="no such supplier")
    behind = DeliveryState(delivery=2, target="dc/erp", state="pending", behind=1, behind_letter=3)
    waits = DeliveryState(delivery=9, target="dc/wms", state="pending", behind=8)
    desk.event_rows = [desk.event_rows[0].model_copy(update={"deliveries": [parked, behind, waits]})]
    told = distctl("trace", "R-1", "--socket", agent).stdout
    assert "dc/erp parked (letter 3: no such supplier)" in told
    assert "dc/erp pending (waiting behind delivery 1, letter 3)" in told
    assert "dc/wms pending (waiting behind delivery 8)" in told


def test_what_waits_behind_has_a_column_of_its_own_where_anything_does(agent: Path, desk: WrittenDesk) -> None:
    desk.lane_rows = [desk.lane_rows[0].model_copy(update={"pending": 3, "in_doubt": 0, "waiting_behind": 2})]
    heading, row = distctl("status", "--socket", agent).stdout.splitlines()[-2:]
    assert dict(zip(heading.split(), row.split(), strict=False))["BEHIND"] == "2"
    assert dict(zip(heading.split(), row.split(), strict=False))["BACKLOG"] == "1"


def test_status_as_json_is_the_answer_of_the_agent(agent: Path) -> None:
    answer = json.loads(distctl("status", "--socket", agent, "-o", "json").stdout)
    assert (answer["as_of"], answer["site"], answer["totals"]["pending"]) == ("2026-03-02T09:00:12Z", "dc-north", 1200)
    assert answer["lanes"][0]["due_since"] == "2026-03-02T08:00:12Z"


def test_dead_letters_as_a_table_say_what_to_do(agent: Path) -> None:
    assert distctl("dlq", "list", "--socket", agent).stdout == (
        "ID  PARKED                FLOW             PLACE                 CODE          SHOWN  RULE"
        "              DO\n"
        " 1  2026-03-02 09:00:12Z  recommendations  reco.csv line 14 qty  not-a-number  '4o'   a decimal number"
        "  correct it and send it again\n"
    )


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["flows"], "recommendations     1  40,000    0    1,200"),
        (["events"], "  2  2026-03-02 09:00:12Z  recommendations  snapshot  R-1  dc/erp delivered PO-9"),
        (["events", "ab" * 16], '"sku": "R-1"'),
        (["trace", "R-1"], "reco.csv line 2"),
        (["dlq", "show", "1"], "correct it and send it again"),
        (["indoubt", "list"], "asks a person  no answer in 5 s"),
        (["indoubt", "show", "7"], "it waits for a person"),
        (["audit", "list"], "ada    hold    lane a/b  stock"),
        (["audit", "verify"], "the audit is whole up to entry 1"),
    ],
)
def test_every_answer_has_a_form_for_people_and_one_for_machines(agent: Path, command: list[str], told: str) -> None:
    people = distctl(*command, "--socket", agent)
    machines = distctl(*command, "--socket", agent, "-o", "json")
    assert (people.returncode, machines.returncode) == (0, 0)
    assert told in people.stdout
    assert json.loads(machines.stdout)


def test_one_row_a_line_as_json_lines(agent: Path, desk: WrittenDesk) -> None:
    desk.letters = [a_letter(number) for number in range(1500, 0, -1)]
    lines = distctl("dlq", "list", "-n", "1200", "--socket", agent, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(1500, 300, -1))


def test_a_list_that_is_cut_says_that_there_is_more(agent: Path, desk: WrittenDesk) -> None:
    desk.letters = [a_letter(number) for number in range(150, 0, -1)]
    answer = distctl("dlq", "list", "--socket", agent)
    assert len(answer.stdout.splitlines()) == 101
    assert "the newest 100; there are more" in answer.stderr


def test_yaml_and_csv_say_the_same_as_json(agent: Path) -> None:
    rows = json.loads(distctl("dlq", "list", "--socket", agent, "-o", "json").stdout)
    assert YAML(typ="safe").load(distctl("dlq", "list", "--socket", agent, "-o", "yaml").stdout) == rows
    [row] = csv.DictReader(io.StringIO(distctl("dlq", "list", "--socket", agent, "-o", "csv").stdout))
    assert (row["id"], row["place"], row["closed_at"]) == ("1", "reco.csv line 14", "")


@pytest.mark.parametrize(
    ("form", "written"), [("table", ""), ("json", "[]\n"), ("jsonl", ""), ("yaml", "[]\n"), ("csv", "")]
)
def test_an_empty_list_is_empty_and_said_so_to_people(agent: Path, desk: WrittenDesk, form: str, written: str) -> None:
    desk.letters = []
    answer = distctl("dlq", "list", "--socket", agent, "-o", form)
    assert (answer.returncode, answer.stdout) == (0, written)
    assert answer.stderr == ("no dead letters\n" if form == "table" else "")


# --- hostile text


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "yaml", "csv"])
@pytest.mark.parametrize(
    "command", [["status"], ["flows"], ["events"], ["dlq", "list"], ["dlq", "show", "1"], ["trace", HOSTILE]]
)
def test_text_from_outside_never_reaches_the_terminal_as_it_came(
    agent: Path, desk: WrittenDesk, form: str, command: list[str]
) -> None:
    if "\x00" in "".join(command):
        command = [word.replace("\x00", "") for word in command]
    desk.letters = [a_letter(1, place=HOSTILE, shown=HOSTILE, hint=HOSTILE, flow=HOSTILE, subject=HOSTILE)]
    key = HOSTILE.replace("\x00", "")
    desk.event_rows = [desk.event_rows[0].model_copy(update={"subject": key, "place": HOSTILE, "flow": HOSTILE})]
    desk.lane_rows = [desk.lane_rows[0].model_copy(update={"flow": HOSTILE, "breaker_reason": HOSTILE})]
    desk.flow_rows = [desk.flow_rows[0].model_copy(update={"flow": HOSTILE, "owner": HOSTILE})]
    desk.conditions = [Condition(name="trouble", count=1, text=HOSTILE)]
    answer = distctl(*command, "--socket", agent, "-o", form)
    assert answer.returncode == 0
    assert RAW_CONTROL.findall(answer.stdout + answer.stderr) == []


def test_an_error_with_hostile_text_is_one_clean_line(agent: Path) -> None:
    answer = as_a_process("trace", "\x1b[2J\u202e", "--socket", agent)
    assert answer.returncode == ExitCode.NOT_FOUND
    assert RAW_CONTROL.findall(answer.stderr) == []
    assert len(answer.stderr.splitlines()) == 1


def test_a_terminal_of_a_narrow_character_set_gets_escapes(agent: Path, desk: WrittenDesk) -> None:
    desk.letters = [a_letter(1, shown="ü…\x1b")]
    answer = as_a_process("dlq", "list", "--socket", agent, PYTHONIOENCODING="ascii")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "\\xfc\\u2026\\u241b" in answer.stdout


@pytest.mark.parametrize("name", ["a/b", "../../v1/status", "\udcff", "%2e%2e", "?limit=1", "é"])
def test_odd_names_are_names_and_nothing_else(agent: Path, name: str) -> None:
    for command in (["events", name], ["trace", name]):
        answer = distctl(*command, "--socket", agent)
        assert answer.returncode == ExitCode.NOT_FOUND
        assert "older" not in answer.stderr


def test_a_spreadsheet_gets_no_formula(agent: Path, desk: WrittenDesk) -> None:
    desk.letters = [a_letter(1, shown="=cmd|' /C calc'!A0")]
    [row] = csv.DictReader(io.StringIO(distctl("dlq", "list", "--socket", agent, "-o", "csv").stdout))
    assert row["shown"].startswith("'=")


# --- exit codes


def test_without_an_agent_the_exit_code_is_7_and_the_cure_is_named(tmp_path: Path) -> None:
    for command in (
        ["status"],
        ["flows"],
        ["events"],
        ["trace", "K"],
        ["dlq", "list"],
        ["indoubt", "list"],
        ["audit", "verify"],
    ):
        answer = distctl(*command, "--data", tmp_path)
        assert answer.returncode == ExitCode.UNREACHABLE
        assert "distctl agent run" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["nonsense"], ExitCode.USAGE),
        (["status", "-o", "xml"], ExitCode.USAGE),
        (["status", "--fail-on", "rain"], ExitCode.USAGE),
        (["status", "--fail-on", "unreachable"], ExitCode.UNHEALTHY),
        (["status", "--fail-on", "any"], ExitCode.UNHEALTHY),
        (["status", "--fail-on", "parked"], ExitCode.DONE),
        (["events", "99"], ExitCode.NOT_FOUND),
        (["trace", "nobody"], ExitCode.NOT_FOUND),
        (["dlq", "show", "99"], ExitCode.NOT_FOUND),
        (["dlq", "show", "x"], ExitCode.USAGE),
        (["indoubt", "show", "99"], ExitCode.NOT_FOUND),
        (["audit", "verify"], ExitCode.UNHEALTHY),
        (["completion", "tcsh"], ExitCode.USAGE),
    ],
)
def test_exit_codes(agent: Path, desk: WrittenDesk, command: list[str], code: ExitCode) -> None:
    desk.conditions = [Condition(name="unreachable", count=1, text="unreachable: dc/erp")]
    desk.first_bad = 3
    answer = distctl(*command, "--socket", agent)
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["dlq", "list", "-n", "0"], "Invalid value for '--limit' / '-n': it must be at least 1"),
        (["dlq", "show", "x"], "Invalid value for 'number': it must be a whole number"),
        (["status", "-o", "xml"], "'xml' is not one of 'table', 'json', 'jsonl', 'yaml', 'csv'"),
        (["status", "extra"], "unexpected extra argument"),
        (["nonsense"], "No such command 'nonsense'"),
        (["trace"], "Missing argument 'key'"),
        (["trace", ""], "key: it must have at least 1 character"),
        (["trace", "x" * 600], "key: it must have at most 500 characters"),
    ],
)
def test_a_wrong_command_line_is_one_line_in_plain_words(agent: Path, command: list[str], told: str) -> None:
    answer = distctl(*command, "--socket", agent)
    assert (answer.returncode, answer.stdout) == (ExitCode.USAGE, "")
    assert re.fullmatch(r"distctl: [^\n]+\n", answer.stderr)
    assert told in answer.stderr
    assert not re.search("Input|String|query|Value error", answer.stderr)


def test_a_misspelt_command_is_suggested() -> None:
    assert "Did you mean 'status'" in distctl("statsu").stderr


def test_two_agents_here_need_a_name(desk: WrittenDesk, tmp_path: Path) -> None:
    home = tmp_path / "distctl"
    code = (
        "import agent.control.endpoint as e, pathlib, sys; "
        f"e.state_home = lambda: pathlib.Path({str(home)!r}); "
        "from console.cli.app import main; main(['status'])"
    )
    with served(desk, home / "a" / "control" / "agent.sock"):
        alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with served(desk, home / "b" / "control" / "agent.sock"):
            several = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert alone.returncode == ExitCode.DONE
    assert several.returncode == ExitCode.USAGE
    assert "a, b" in several.stderr


def test_a_site_on_the_command_line_overrules_the_environment(agent: Path, tmp_path: Path) -> None:
    data = str(agent.parent.parent)
    home = {"XDG_STATE_HOME": str(tmp_path), "DISTCTL_DATA": data}
    assert as_a_process("status", **home).returncode == ExitCode.DONE
    answer = as_a_process("--site", "nowhere", "status", **home)
    assert (answer.returncode, answer.stdout) == (ExitCode.UNREACHABLE, "")
    assert "nowhere/control/agent.sock" in answer.stderr
    assert f"--data {data} --site nowhere" in answer.stderr, "it may be its hub's"
    named = as_a_process("--data", data, "status", DISTCTL_SITE="nowhere", DISTCTL_SOCKET="/nowhere")
    assert named.returncode == ExitCode.DONE


def test_the_agent_of_another_site_is_not_believed(agent: Path) -> None:
    answer = distctl("--site", "berlin", "--socket", agent, "status")
    assert (answer.returncode, answer.stdout) == (ExitCode.USAGE, "")
    assert "is that of site dc-north, not of berlin" in answer.stderr
    assert "--data" in answer.stderr
    assert distctl("--site", "dc-north", "--socket", agent, "status").returncode == ExitCode.DONE


def test_a_defect_of_ours_leaves_a_report_and_no_traceback(tmp_path: Path) -> None:
    code = (
        "import console.cli.session as s\n"
        "def fail(self): raise ZeroDivisionError('boom')\n"
        "s.Session.client = fail\n"
        "from console.cli.app import main; main(['status'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    [report] = tmp_path.glob("distctl-crash-*.txt")
    assert answer.returncode == ExitCode.FAILED
    assert "Traceback" not in answer.stderr
    assert str(report) in answer.stderr
    assert "ZeroDivisionError: boom" in report.read_text()


# --- terminals, pipes and looking again


def test_a_reader_that_goes_away_ends_it_quietly(agent: Path, desk: WrittenDesk) -> None:
    desk.letters = [a_letter(number) for number in range(3000, 0, -1)]
    command = f"{sys.executable} -m console.cli.app --socket {agent} dlq list -n 3000 -o jsonl | head -1; exit ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["id"] == 3000


def test_watching_writes_one_line_a_look_and_ends_when_it_is_clear(agent: Path, desk: WrittenDesk) -> None:
    desk.conditions = [Condition(name="backlog", count=5, text="5 on their way")]
    command = ["status", "--watch", "--every", "0.1", "--until-clear", "backlog", "-o", "json", "--socket", str(agent)]
    with subprocess.Popen(
        [sys.executable, "-m", "console.cli.app", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        desk.conditions = []
        rest = [json.loads(line) for line in watching.stdout]
        assert watching.wait(30) == ExitCode.DONE
    assert first["conditions"][0]["name"] == "backlog"
    assert rest[-1]["conditions"] == []


def test_watching_as_csv_has_one_heading(agent: Path, desk: WrittenDesk) -> None:
    desk.conditions = [Condition(name="backlog", count=5, text="5 on their way")]
    command = ["status", "--watch", "--every", "0.1", "--until-clear", "backlog", "-o", "csv", "--socket", str(agent)]
    with subprocess.Popen(
        [sys.executable, "-m", "console.cli.app", *command], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        heading, _, _ = (watching.stdout.readline() for _ in range(3))
        desk.conditions = []
        rest = watching.stdout.readlines()
    assert heading.startswith("as_of,site,")
    assert heading not in rest


def test_waiting_until_it_is_clear_needs_more_than_one_look(agent: Path) -> None:
    answer = distctl("status", "--until-clear", "backlog", "--socket", agent)
    assert (answer.returncode, answer.stdout) == (ExitCode.USAGE, "")
    assert "--watch" in answer.stderr


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["status", "status -o json", "--help", "--version", "dlq list -o yaml"])
def test_a_stdout_that_takes_nothing_is_an_error_of_one_line(
    agent: Path, tmp_path: Path, command: str, where: str
) -> None:
    shell = f"{sys.executable} -m console.cli.app --socket {agent} {command} {where}"
    answer = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert answer.returncode == ExitCode.FAILED
    assert re.fullmatch(r"distctl: stdout cannot be written: [^\n]+\n", answer.stderr)
    assert list(tmp_path.glob("distctl-crash-*")) == []


def test_a_stderr_that_is_closed_changes_nothing_else(agent: Path) -> None:
    shell = f"{sys.executable} -m console.cli.app --socket {agent} trace nobody 2>&-"
    assert subprocess.run(["bash", "-c", shell], check=False).returncode == ExitCode.NOT_FOUND


def test_watching_bears_a_restart_of_the_agent(desk: WrittenDesk, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    desk.conditions = [Condition(name="backlog", count=5, text="5 on their way")]
    command = ["status", "--watch", "--every", "0.1", "--until-clear", "backlog", "-o", "jsonl", "--socket", str(path)]
    with served(desk, path):
        watching = subprocess.Popen(
            [sys.executable, "-m", "console.cli.app", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        watching.stdout.readline()
    assert watching.stderr is not None
    assert "still asking" in watching.stderr.readline()
    desk.conditions = []
    with served(desk, path):
        out, _ = watching.communicate(timeout=30)
    assert watching.returncode == ExitCode.DONE
    assert json.loads(out.splitlines()[-1])["conditions"] == []


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """What a terminal of that width gets to see."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with subprocess.Popen(
        [sys.executable, "-m", "console.cli.app", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(theirs)
        seen = b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and select.select([ours], [], [], 30)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        process.wait(30)
    os.close(ours)
    return seen.decode()


def test_colour_is_only_on_a_terminal_and_only_if_it_is_wanted(agent: Path) -> None:
    assert "\x1b[1m" in on_a_terminal("dlq", "list", "--socket", str(agent))
    assert "\x1b" not in on_a_terminal("dlq", "list", "--socket", str(agent), NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("dlq", "list", "--socket", str(agent), "--no-color")
    assert "\x1b" not in on_a_terminal("dlq", "list", "--socket", str(agent), TERM="dumb")
    assert "\x1b" not in distctl("dlq", "list", "--socket", str(agent)).stdout


def test_a_row_is_one_line_of_the_terminal(agent: Path) -> None:
    lines = on_a_terminal("dlq", "list", "--socket", str(agent), "--no-color", columns=60).splitlines()
    assert len(lines) == 2
    assert [len(line) for line in lines] == [60, 60]
    assert lines[1].endswith("…")
