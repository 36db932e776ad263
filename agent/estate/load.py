"""Reading the estate folder: every mistake with file, line and column, all of them at once.

`estate.yaml`, `sites/*.yaml` and `flows/*.yaml` make the estate. Folders of later versions are named in a warning, so that
nothing a person wrote is ignored in silence. What needs more than the files (connectors, expressions, samples) is `check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from agent.estate.findings import Finding, Severity, has_errors, in_order
from agent.estate.secrecy import is_literal_secret
from agent.estate.validation import complaints
from agent.estate.yaml_document import BYTES_LIMIT, Path, YamlDocument, read_yaml
from state.model.errors import ConfigError
from state.model.estate import Estate, EstateSettings, FlowSpec, SiteSpec
from state.model.visible import shown, visible

SETTINGS_FILE: Final = "estate.yaml"
LATER_FOLDERS: Final = ("partners", "contracts", "workflows", "calendars", "master")
FILES_LIMIT: Final = 2_000

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a folder holds. `estate` is None where an error keeps it from being one; the files say where its parts stand.

    `readable` is what could be read of it: enough to check the flows that stand, not to run them.
    """

    estate: Estate | None
    readable: Estate | None = None
    findings: list[Finding]
    settings_file: YamlDocument | None = None
    site_files: Mapping[str, YamlDocument] = field(default_factory=dict)
    flow_files: Mapping[str, YamlDocument] = field(default_factory=dict)

    def raise_first(self) -> Estate:
        """The estate. Raises `ConfigError` for the first error, telling how many more there are."""
        errors = [one for one in self.findings if one.severity is Severity.ERROR]
        if self.estate is not None and not errors:
            return self.estate
        first = errors[0]
        more = f" (and {len(errors) - 1} more: run distctl check)" if len(errors) > 1 else ""
        raise ConfigError(
            first.message + more,
            file=first.file,
            line=first.line,
            column=first.column,
            hint=first.hint,
            code=first.code,
        )


def load(folder: FilePath) -> Loaded:
    """The estate in `folder`. Never raises for what stands in the files; sorted findings tell what is wrong."""
    return _Reader(folder).load()


class _Reader:
    def __init__(self, folder: FilePath) -> None:
        self._folder = folder
        self._findings: list[Finding] = []

    def load(self) -> Loaded:
        if not self._folder.is_dir():
            hint = "distctl init writes an estate to begin with"
            self._complain(SETTINGS_FILE, f"there is no folder {visible(str(self._folder))}", hint, "no-folder")
            return Loaded(estate=None, findings=self._findings)
        settings_file = self._document(self._folder / SETTINGS_FILE)
        settings = self._model(EstateSettings, settings_file)
        site_files, sites = self._parts("sites", SiteSpec, "site")
        flow_files, flows = self._parts("flows", FlowSpec, "flow")
        self._warn_of_unread_files()
        for document in (*site_files.values(), *flow_files.values()):
            self._findings += _literal_secrets(document)
        findings = in_order(self._findings)
        readable = Estate(settings=settings, sites=sites, flows=flows) if settings is not None else None
        return Loaded(
            estate=None if has_errors(findings) else readable,
            readable=readable,
            findings=findings,
            settings_file=settings_file,
            site_files=site_files,
            flow_files=flow_files,
        )

    def _parts(
        self, folder: str, kind: type[_Model], name_key: str
    ) -> tuple[dict[str, YamlDocument], dict[str, _Model]]:
        files: dict[str, YamlDocument] = {}
        models: dict[str, _Model] = {}
        for path in self._yaml_files(folder):
            document = self._document(path)
            model = self._model(kind, document)
            if document is None or model is None:
                if document is not None:
                    files.setdefault(document.file, document)
                continue
            name = str(getattr(model, name_key))
            if name in models:
                self._findings.append(
                    document.finding(
                        (name_key,),
                        f"{name_key} {shown(name)} is already defined in {files[name].file}",
                        hint="names are unique in an estate",
                        code="duplicate-name",
                    )
                )
                continue
            files[name], models[name] = document, model
        return files, models

    def _yaml_files(self, folder: str) -> Iterator[FilePath]:
        """The files of a folder in order of name; a missing or empty folder is a mistake."""
        try:
            names = sorted(path for path in (self._folder / folder).iterdir() if not path.name.startswith("."))
        except OSError:
            names = []
        found = [path for path in names if path.suffix == ".yaml" and not path.is_dir()]
        for path in names:
            if path.suffix == ".yml":
                self._complain(self._name(path), "this file is not read", "rename it to .yaml", "file-name")
        if not found:
            self._complain(
                folder, f"there is no {folder}/*.yaml", f"write one file for each of the {folder}", "no-files"
            )
        if len(found) > FILES_LIMIT:
            self._complain(folder, f"more than {FILES_LIMIT} files", "split the estate", "too-many-files")
        yield from found[:FILES_LIMIT]

    def _document(self, path: FilePath) -> YamlDocument | None:
        name = self._name(path)
        try:
            if not path.is_file():
                self._complain(
                    name, f"there is no file {name}", "distctl init writes an estate to begin with", "no-file"
                )
                return None
            with path.open("rb") as stream:
                raw = stream.read(BYTES_LIMIT + 1)
        except OSError as error:
            self._complain(name, f"the file cannot be read: {error.strerror}", "check its permissions", "unreadable")
            return None
        document, findings = read_yaml(name, raw)
        self._findings += findings
        return document

    def _model(self, kind: type[_Model], document: YamlDocument | None) -> _Model | None:
        if document is None:
            return None
        if not isinstance(document.value, dict):
            found = "empty" if document.value is None else "no table"
            self._findings.append(
                document.finding(
                    (), f"the file is {found}", hint="it holds lines such as `name: value`", code="no-table"
                )
            )
            return None
        try:
            return kind.model_validate(document.value)
        except ValidationError as error:
            self._findings += [
                document.finding(one.path, one.message, hint=one.hint, code=one.code, key=one.about_key)
                for one in complaints(kind, error, document.value)
            ]
            return None

    def _warn_of_unread_files(self) -> None:
        for path in _files_below(self._folder, LATER_FOLDERS):
            self._warn(path, "this version does not use it", "it waits for a later version; nothing in it is in force")
        try:
            beside = sorted(path for path in self._folder.iterdir() if path.suffix in (".yaml", ".yml"))
        except OSError:
            return
        for path in beside:
            if path.name != SETTINGS_FILE:
                self._warn(path, "this file is not read", "an estate is estate.yaml, sites/*.yaml and flows/*.yaml")

    def _warn(self, path: FilePath, message: str, hint: str) -> None:
        self._findings.append(
            Finding(
                file=self._name(path),
                line=0,
                column=0,
                message=message,
                hint=hint,
                code="not-used",
                severity=Severity.WARNING,
            )
        )

    def _complain(self, file: str, message: str, hint: str, code: str) -> None:
        self._findings.append(Finding(file=file, line=0, column=0, message=message, hint=hint, code=code))

    def _name(self, path: FilePath) -> str:
        return path.relative_to(self._folder).as_posix()


def _files_below(folder: FilePath, names: Iterable[str]) -> Iterator[FilePath]:
    for name in names:
        try:
            yield from sorted(path for path in (folder / name).iterdir() if path.is_file())
        except OSError:
            continue


def _literal_secrets(document: YamlDocument) -> list[Finding]:
    """Secrets that stand in the file itself: under version control, they are everybody's."""
    return [
        document.finding(
            path,
            f"{path[-1]} looks like a secret written into the file",
            hint="name it instead: env:NAME, file:path or credential:name; and change it, for it was seen",
            code="literal-secret",
        )
        for path, value in _settings_texts(document.value, ())
        if is_literal_secret(str(path[-1]), value)
    ]


def _settings_texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text below a `settings` key."""
    if isinstance(value, str) and "settings" in path:
        yield path, value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _settings_texts(one, (*path, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _settings_texts(one, (*path, number))
