"""Every mistake in an estate folder is named at its line and column, with a cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.estate.check import check
from agent.estate.findings import Finding, Severity
from agent.estate.load import load

ESTATE = """\
name: acme
environment: test
currency: EUR
"""

SITE = """\
site: dc-north
timezone: Europe/Berlin
systems:
  planning: {connector: files, settings: {folder: planning/out}}
  erp:
    connector: http
    settings: {base_url: "http://127.0.0.1:8071"}
    memory: {key_lifetime: 24h, lands_within: 5s}
    limits: {in_flight: 4, deadline: 5s}
"""

FLOW = """\
flow: recommendations
owner: planning@acme.example
tier: 1
source:
  system: planning
  settings:
    pattern: "reco-*.csv"
    format: {kind: csv}
  fields:
    reco_id: string
    sku: string
    qty: decimal
    unit: string
    supplier: string
    to: string
    ordered: date
    needed: date
    note: {type: string, required: false}
  sample: samples/reco.csv
contract: replenishment-recommendation/1
op: snapshot
mapping:
  fields:
    reco_id: record.reco_id
    type: "'buy'"
    status: "'proposed'"
    sku: record.sku
    supplier: record.supplier
    to_loc: record.to
    quantity: {value: record.qty, unit: record.unit}
    order_date: record.ordered
    need_date: record.needed
    reason: record.note
order: {mode: strict}
targets:
  - system: erp
    settings: {path: /purchase-orders}
    when: record.status == 'proposed'
    mapping:
      fields:
        reference: record.reco_id
        qty: record.quantity.value * 2
"""

SAMPLE = """\
reco_id,sku,qty,unit,supplier,to,ordered,needed,note
R-1,SKU-1,12.50,EA,SUP-1,DC1,2026-03-01,2026-03-10,
R-2,SKU-2,3,CS,SUP-1,DC1,2026-03-01,2026-03-10,low stock
"""

FILES = {
    "estate.yaml": ESTATE,
    "sites/dc-north.yaml": SITE,
    "flows/recommendations.yaml": FLOW,
    "samples/reco.csv": SAMPLE,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def edit(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    assert old in text, f"{old!r} is not in {file}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def errors(folder: Path) -> list[Finding]:
    return [one for one in check(folder) if one.severity is Severity.ERROR]


SETTINGS, SITES, FLOWS = "estate.yaml", "sites/dc-north.yaml", "flows/recommendations.yaml"

MISTAKES = [
    # file, what is replaced, by what, place of the finding, words of the message, words of the hint
    (SETTINGS, "environment: test", "environmet: test", "estate.yaml:2:1", "'environmet' is not known", "environment?"),
    (SETTINGS, "environment: test", "environment: tset", "estate.yaml:2:14", "cannot be 'tset'", "did you mean test?"),
    (SETTINGS, "currency: EUR", "currency: EUX", "estate.yaml:3:11", "no currency of ISO 4217", "EUR"),
    (SETTINGS, "currency: EUR", "currency: EUR\nname: other", "estate.yaml:4:1", "'name' is already there in line 1", ""),
    (SETTINGS, "name: acme", "name: Acme Corp", "estate.yaml:1:7", "cannot be a name", "lower-case"),
    (SETTINGS, "currency: EUR", "currency: EUR\nretention: {settled: 6d}", "estate.yaml:4:22", "must be 7d at least", ""),
    (SETTINGS, "currency: EUR", "currency: EUR\nretention: {setled: 9d}", "estate.yaml:4:13", "'setled' is not", "settled?"),
    (SETTINGS, "currency: EUR", "currency:\n\tEUR", "estate.yaml:4:1", "no YAML", "tab"),
    (SETTINGS, "name: acme", "name: !secret acme", "estate.yaml:1:7", "tag", "remove it"),
    (SETTINGS, "name: acme", "name: [acme", "estate.yaml:2:12", "no YAML", "brackets"),
    (SETTINGS, "currency: EUR\n", "", "estate.yaml:1:1", "currency is missing", "add a line `currency"),
    (FLOWS, "qty: decimal", "qty: {type: decimal, decimal_mark: ',', grouping: ','}", f"{FLOWS}:12:55", "differ", ""),
    (FLOWS, "ordered: date", "ordered: {type: date, date_format: dd.mm.yyyy}", f"{FLOWS}:16:40", "%d.%m.%Y", ""),
    (FLOWS, "ordered: date", "ordered: {type: date, date_format: '%d.%m.%q'}", f"{FLOWS}:16:40", "%d.%m.%Y", ""),
    (FLOWS, "ordered: date", "ordered: {type: date, date_format: '%d.%m.%Y %Y'}", f"{FLOWS}:16:40", "strptime", ""),
    (FLOWS, "ordered: date", "ordered: {type: instant, date_format: '%d.%m.%Y'}", f"{FLOWS}:16:43", "%z", ""),
    (SITES, "timezone: Europe/Berlin", "timezone: Europe/Berln", f"{SITES}:2:11", "no time zone", "IANA"),
    (SITES, "connector: http", "connector: htp", f"{SITES}:6:16", "no connector 'htp'", "did you mean http?"),
    (SITES, "planning: {", "Planning: {", f"{SITES}:4:3", "cannot be a name", "lower-case"),
    (SITES, "deadline: 5s", "deadline: 5", f"{SITES}:9:38", "a duration is a number with its unit", ""),
    (SITES, "in_flight: 4", "in_flight: 400", f"{SITES}:9:25", "less than or equal to 64", ""),
    (SITES, "in_flight: 4", "inflight: 4", f"{SITES}:9:14", "'inflight' is not known", "did you mean in_flight?"),
    (SITES, "in_flight: 4", "in_flight: 04", f"{SITES}:9:25", "several ways", "quote it"),
    (SITES, "base_url: ", "headers: {X-Api-Key: 8fa2}, base_url: ", f"{SITES}:7:37", "looks like a secret", "env:NAME"),
    (SITES, '"http://127.0.0.1:8071"', '"http://u:pw@erp/"', f"{SITES}:7:26", "looks like a secret", "env:NAME"),
    (SITES, '"http://127.0.0.1:8071"', '"ftp://erp"', f"{SITES}:7:26", "begins with http://", ""),
    (SITES, "base_url: ", "base_ur: ", f"{SITES}:7:16", "'base_ur' is not known", "did you mean base_url?"),
    (FLOWS, "system: planning", "system: planing", f"{FLOWS}:5:11", "no system 'planing'", "did you mean planning?"),
    (FLOWS, "system: erp", "system: epr", f"{FLOWS}:36:13", "no system 'epr'", "did you mean erp?"),
    (FLOWS, "qty: decimal", "qty: decimla", f"{FLOWS}:12:10", "cannot be 'decimla'", "did you mean decimal?"),
    (FLOWS, "{kind: csv}", "{kind: cvs}", f"{FLOWS}:8:20", "cannot be 'cvs'", "did you mean csv?"),
    (FLOWS, "{kind: csv}", "{kind: csv, delimter: ';'}", f"{FLOWS}:8:25", "'delimter' is not known", "delimiter?"),
    (FLOWS, "{kind: csv}", "{kind: csv, delimiter: ':'}", f"{FLOWS}:8:36", "cannot be ':'", '"\\t", ",", ";", "|"'),
    (FLOWS, "pattern: ", "patern: ", f"{FLOWS}:7:5", "'patern' is not known", "did you mean pattern?"),
    (FLOWS, "{path: /purchase-orders}", "{}", f"{FLOWS}:37:15", "path is missing", "add a line"),
    (FLOWS, "tion/1", "tion/2", f"{FLOWS}:20:11", "no contract", "Did you mean replenishment-recommendation/1?"),
    (FLOWS, "value: record.qty,", "value: record.qyt,", f"{FLOWS}:30:30", "no field 'qyt'", "did you mean qty?"),
    (FLOWS, 'type: "\'buy\'"', "type: \"record.sku + recrd.to\"", f"{FLOWS}:25:25", "'recrd.to' is not known", "record?"),
    (FLOWS, "sku: record.sku\n", "sku: trimm(record.sku)\n", f"{FLOWS}:27:10", "no function trimm()", "trim?"),
    (FLOWS, "to_loc: record.to", "to_loc: EUR", f"{FLOWS}:29:13", "'EUR' is not known", "quoted twice: \"'EUR'\";"),
    (FLOWS, "to_loc: record.to", "to_loc: record.to +", f"{FLOWS}:29:24", "ends too early", "docs/estate.md"),
    (FLOWS, "to_loc: record.to", "to_loc: record.qty + 1.5", f"{FLOWS}:29:24", "cannot take (decimal, double)", "exact"),
    (FLOWS, "to_loc: record.to", "to_lok: record.to", f"{FLOWS}:29:5", "has no field 'to_lok'", "did you mean to_loc?"),
    (FLOWS, "    to_loc: record.to\n", "", f"{FLOWS}:23:3", "needs to_loc", "add a line `to_loc: "),
    (FLOWS, ", unit: record.unit", "", f"{FLOWS}:30:15", "needs unit", "add a line `unit: "),
    (FLOWS, "unit: record.unit", "uom: record.unit", f"{FLOWS}:30:35", "has no field 'uom'", "it has"),
    (FLOWS, "record.reco_id\n        qty", "record.reco_di\n        qty", f"{FLOWS}:41:27", "no field 'reco_di'", "reco_id?"),
    (FLOWS, "record.status == 'proposed'", "record.status", f"{FLOWS}:38:11", "true or false", "compare it"),
    (FLOWS, "record.status == 'proposed'", "event.subjekt == 'x'", f"{FLOWS}:38:17", "'subjekt'", "did you mean subject?"),
    (FLOWS, "{mode: strict}", "{mode: strickt}", f"{FLOWS}:34:15", "cannot be 'strickt'", "did you mean strict?"),
    (FLOWS, "{mode: strict}", "{mode: strict, key: record.skuu}", f"{FLOWS}:34:35", "no field 'skuu'", "did you mean sku?"),
    (FLOWS, "reason: record.note", "reason: 2026-03-01", f"{FLOWS}:33:13", "date stands here", "'2026-03-01'"),
    (SITES, "base_url: ", "auth: {kind: bearer, token: 's3cr'}, base_url: ", f"{SITES}:7:44", "looks like a secret", "env:NAME"),
    (FLOWS, "op: snapshot", "op: command\norder: {mode: latest}\nx: 1", f"{FLOWS}:23:1", "'x' is not known", ""),
    (FLOWS, "    when:", "    shadow_of: epr\n    when:", f"{FLOWS}:38:16", "no other target", ""),
    (FLOWS, "samples/reco.csv", "samples/recoo.csv", f"{FLOWS}:19:11", "cannot be read", "record one"),
    (FLOWS, "samples/reco.csv", "/etc/hostname", f"{FLOWS}:19:11", "in the estate folder", "copy it"),
    (FLOWS, "orders}", "orders, probe: {path: '/o/{key}', reference: err}}", f"{FLOWS}:37:77", "cannot be 'err'", "with /"),
    (FLOWS, "tier: 1", "tier: 4", f"{FLOWS}:3:7", "less than or equal to 3", ""),
    (FLOWS, "targets:\n", "targets: []\nx:\n", f"{FLOWS}:35:10", "at least 1 item", ""),
    (FLOWS, "owner: planning@acme.example", "<<: {owner: x}", f"{FLOWS}:2:1", "cannot be used", "write the fields out"),
    (FLOWS, "    sku: string", "    sku: {type: string, pattern: '('}", f"{FLOWS}:11:34", "regular expression", "RE2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "message", "hint"), MISTAKES, ids=[one[3] + one[4][:20] for one in MISTAKES]
)
def test_a_mistake_is_named_at_its_line_and_column_with_a_cure(
    folder: Path, file: str, old: str, new: str, place: str, message: str, hint: str
) -> None:
    edit(folder, file, old, new)
    found = [one for one in errors(folder) if one.place == place and message in one.message and hint in one.hint]
    assert found, "\n".join(map(str, check(folder)))


def test_an_estate_without_mistakes_has_no_findings(folder: Path) -> None:
    assert check(folder) == []
    assert load(folder).estate is not None


SAMPLE_MISTAKES = [
    ("12.50,EA", "12.5O,EA", "samples/reco.csv:2", "field qty must be a decimal", "flows/recommendations.yaml:12:10"),
    ("2026-03-01,2026-03-10,low", "2026-02-30,2026-03-10,low", "samples/reco.csv:3", "date of the calendar", ""),
    ("R-2,SKU-2", ",SKU-2", "samples/reco.csv:3", "field reco_id is required and empty", ""),
    ("3,CS", "3,XXQ", "samples/reco.csv:3", "quantity.unit", "flows/recommendations.yaml:30:"),
    ("3,CS", "-3,CS", "samples/reco.csv:3", "quantity", "flows/recommendations.yaml:30:"),
    ("low stock", '"low', "samples/reco.csv:3:48", "", ""),
    (",ordered,", ",orderd,", "samples/reco.csv", "the header does not name ordered", "orderd"),
]


@pytest.mark.parametrize(("old", "new", "place", "message", "hint"), SAMPLE_MISTAKES)
def test_a_mistake_in_a_sample_names_its_line_and_the_expression_that_reads_it(
    folder: Path, old: str, new: str, place: str, message: str, hint: str
) -> None:
    edit(folder, "samples/reco.csv", old, new)
    found = [one for one in errors(folder) if one.place == place and message in one.message and hint in one.hint]
    assert found, "\n".join(map(str, check(folder)))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("quantity: record.qty", "quantity(record.x, 'EA')"),
        ("quantity: {value: record.qty, unit: record.unit}\n    unit_cost: record.qty", "money(record.x, 'EUR')"),
    ],
)
def test_a_number_where_an_object_is_needed_is_told_what_makes_it(folder: Path, line: str, hint: str) -> None:
    edit(folder, FLOWS, "quantity: {value: record.qty, unit: record.unit}", line)
    assert {hint in one.hint for one in errors(folder)} == {True}


def test_a_secret_is_never_shown(folder: Path) -> None:
    edit(folder, SITES, '"http://127.0.0.1:8071"', '"http://u:hunter2@erp/", auth: {kind: bearer, token: hunter2}')
    found = errors(folder)
    assert [one.code for one in found] == ["literal-secret", "literal-secret"]
    assert "hunter2" not in "".join(map(str, found))


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [("sku,qty", "sku,quantity", "The header names reco_id, sku, quantity"), (",", ";", 'set delimiter: ";"')],
)
def test_a_header_without_a_declared_column_is_one_mistake(folder: Path, old: str, new: str, hint: str) -> None:
    path = folder / "samples/reco.csv"
    path.write_text(SAMPLE.replace(old, new), encoding="utf-8")
    [found] = errors(folder)
    assert (found.file, found.code) == ("samples/reco.csv", "csv-header-missing")
    assert "qty" in found.message
    assert hint in found.hint


def test_a_header_may_lack_a_column_that_is_not_required(folder: Path) -> None:
    (folder / "samples/reco.csv").write_text(SAMPLE.replace(",note", ",remark"), encoding="utf-8")
    assert check(folder) == []


def test_several_mistakes_are_found_at_once_and_sorted_by_place(folder: Path) -> None:
    edit(folder, SITES, "connector: http", "connector: htp")
    edit(folder, FLOWS, "value: record.qty,", "value: record.qyt,")
    edit(folder, FLOWS, "system: planning", "system: planing")
    found = errors(folder)
    assert [one.place for one in found] == [f"{FLOWS}:5:11", f"{FLOWS}:30:30", f"{SITES}:6:16"]


def test_a_broken_site_file_does_not_make_its_systems_unknown(folder: Path) -> None:
    edit(folder, SITES, "site: dc-north", "site: DC NORTH")
    assert {one.code for one in errors(folder)} == {"bad-name"}


def test_a_mistake_in_a_block_of_lines_is_named_at_its_own_line(folder: Path) -> None:
    edit(folder, FLOWS, "    reason: record.note", "    reason: |\n      record.note +\n        record.nota")
    assert [one.place for one in errors(folder)] == [f"{FLOWS}:35:16"]


def test_a_key_with_spaces_is_reached_by_its_quoted_name(folder: Path) -> None:
    edit(folder, FLOWS, "    to: string", '    "ship to": string')
    edit(folder, FLOWS, "record.to\n", "record[\"ship to\"] + ''\n")
    edit(folder, "samples/reco.csv", ",to,", ",ship to,")
    assert errors(folder) == []


def second_flow(change: Callable[[str], str]) -> str:
    return change(FLOW.replace("flow: recommendations", "flow: transfers").replace("reco-*.csv", "move-*.csv"))


MEETINGS = [
    (lambda text: text, "flows/transfers.yaml:34:8", "different order domains"),
    (
        lambda text: text.replace("{mode: strict}", "{domain: recommendations}").replace("tier: 1", "tier: 2"),
        "flows/transfers.yaml:3:7",
        "in tiers 1 and 2",
    ),
    (lambda text: text.replace("move-*", "reco-*"), "flows/transfers.yaml:7:14", "takes the same files"),
    (
        lambda text: text.replace("flow: transfers", "flow: recommendations"),
        "flows/transfers.yaml:1:7",
        "already defined",
    ),
]


@pytest.mark.parametrize(("change", "place", "message"), MEETINGS)
def test_flows_that_meet_must_agree(folder: Path, change: Callable[[str], str], place: str, message: str) -> None:
    (folder / "flows/transfers.yaml").write_text(second_flow(change), encoding="utf-8")
    found = [one for one in errors(folder) if one.place == place and message in one.message]
    assert found, "\n".join(map(str, check(folder)))


def test_flows_that_share_their_domain_and_tier_may_meet(folder: Path) -> None:
    shared = second_flow(lambda text: text.replace("{mode: strict}", "{domain: recommendations}"))
    (folder / "flows/transfers.yaml").write_text(shared, encoding="utf-8")
    assert check(folder) == []


def test_flows_that_share_their_domain_must_share_their_order(folder: Path) -> None:
    mixed = second_flow(lambda text: text.replace("{mode: strict}", "{mode: any, domain: recommendations}"))
    (folder / "flows/transfers.yaml").write_text(mixed, encoding="utf-8")
    assert [one.code for one in errors(folder)] == ["order-mode"]


def test_a_system_at_two_sites_must_be_named_with_its_site(folder: Path) -> None:
    (folder / "sites/dc-south.yaml").write_text(SITE.replace("dc-north", "dc-south"), encoding="utf-8")
    found = errors(folder)
    assert (found[0].place, found[0].code) == (f"{FLOWS}:5:11", "ambiguous-system")
    assert "dc-north/planning" in found[0].hint


def test_latest_order_needs_snapshots(folder: Path) -> None:
    edit(folder, FLOWS, "op: snapshot", "op: command")
    edit(folder, FLOWS, "{mode: strict}", "{mode: latest}")
    assert [(one.place, one.code) for one in errors(folder)] == [(f"{FLOWS}:34:15", "latest-needs-snapshots")]


def test_a_sink_that_can_only_ask_a_person_is_a_warning(folder: Path) -> None:
    edit(folder, SITES, "    memory: {key_lifetime: 24h, lands_within: 5s}\n", "")
    assert [(one.place, one.code, one.severity) for one in check(folder)] == [
        (f"{SITES}:5:3", "waits-for-a-person", Severity.WARNING)
    ]
    assert load(folder).estate is not None


def test_a_probe_without_lands_within_is_a_warning(folder: Path) -> None:
    edit(folder, SITES, ", lands_within: 5s", "")
    edit(folder, FLOWS, "{path: /purchase-orders}", "{path: /purchase-orders, probe: {path: '/orders/{key}'}}")
    assert [one.code for one in check(folder)] == ["no-lands-within"]


def test_what_a_later_version_reads_is_named_in_a_warning(folder: Path) -> None:
    (folder / "partners").mkdir()
    (folder / "partners/acme.yaml").write_text("partner: acme\n", encoding="utf-8")
    (folder / "notes.yaml").write_text("x: 1\n", encoding="utf-8")
    found = check(folder)
    assert [(one.file, one.severity) for one in found] == [
        ("notes.yaml", Severity.WARNING),
        ("partners/acme.yaml", Severity.WARNING),
    ]


def test_a_yml_file_is_not_overlooked(folder: Path) -> None:
    (folder / "flows/recommendations.yaml").rename(folder / "flows/recommendations.yml")
    assert {one.code for one in errors(folder)} == {"file-name", "no-files"}


def test_a_key_that_a_format_does_not_know_is_told_the_keys_of_that_format(folder: Path) -> None:
    edit(folder, FLOWS, "{kind: csv}", "{kind: json-lines, xyz: 1}")
    [found] = errors(folder)
    assert found.hint == "possible here are encoding, kind, max_depth, max_digits, max_keys, max_record_size"


def test_a_system_that_is_source_and_target_has_its_mistake_told_once(folder: Path) -> None:
    edit(folder, SITES, "{folder: planning/out}", "{folder: planning/out, xyz: 1}")
    edit(folder, FLOWS, "  - system: erp\n", "  - system: planning\n  - system: erp\n")
    assert [one.place for one in errors(folder)] == [f"{SITES}:4:65"]


def test_a_folder_that_is_not_there_is_one_mistake(tmp_path: Path) -> None:
    [found] = errors(tmp_path / "nowhere")
    assert found.message == f"there is no folder {tmp_path / 'nowhere'}"
    assert "distctl init" in found.hint


def test_a_folder_that_is_no_estate_says_how_to_begin(tmp_path: Path) -> None:
    found = errors(tmp_path)
    assert found[0].file == "estate.yaml"
    assert "distctl init" in found[0].hint


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(folder: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{two}: &{two} [{','.join([f'*{one}'] * 9)}]\n" for one, two in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (folder / "estate.yaml").write_text(ESTATE + bomb, encoding="utf-8")
    assert "too-large" in {one.code for one in errors(folder)}


def test_a_file_that_is_not_utf_8_is_named_at_the_byte(folder: Path) -> None:
    (folder / "estate.yaml").write_bytes(b"name: acme\nowner: M\xfcller\n")
    assert [(one.place, one.code) for one in errors(folder)] == [("estate.yaml:2:9", "encoding")]
