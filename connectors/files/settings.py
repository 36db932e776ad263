"""The settings of the files connector, which are also its documentation."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from connectors.files.naming import PLACEHOLDERS, unknown_placeholders
from connectors.formats.settings import FormatSettings, JsonSettings
from state.model.estate import Duration

GIB: Final = 1024**3


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StableSize(_Settings):
    """A file is complete when it looks the same for a while: for partners that write under the final name."""

    kind: Literal["stable-size"] = "stable-size"
    rest: Duration = Field("2s", validate_default=True, description="how long size, time and inode stay as they are")
    empty_rest: Duration = Field(
        "60s", validate_default=True, description="the same for an empty file, which is mostly one not begun yet"
    )


class DoneMarker(_Settings):
    """A file is complete when a second one lies beside it: the surest way, if the partner can do it."""

    kind: Literal["done-marker"] = "done-marker"
    suffix: str = Field(".done", pattern=r"^\.[A-Za-z0-9_.-]{1,20}$", description="plan.csv is done with plan.csv.done")


Guard: TypeAlias = Annotated[StableSize | DoneMarker, Field(discriminator="kind")]


class SourceSettings(_Settings):
    """Where files arrive and how they are taken."""

    folder: str = Field(min_length=1, description="absolute, or relative to the estate folder; it must exist")
    pattern: str = Field(
        "*", min_length=1, description="glob over the file name, case matters; hidden files are left alone"
    )
    format: FormatSettings
    guard: Guard = StableSize()
    archive: str = Field("archive", min_length=1, description="where taken files go; relative to `folder`")
    quarantine: str = Field("quarantine", min_length=1, description="where files go that are bad as a whole")
    order: Literal["mtime", "name"] = Field(
        "mtime", description="which file is taken first; `name` for names that rise with time"
    )
    max_bytes: int = Field(GIB, ge=1, description="a larger file is not read but reported")
    batch: int = Field(500, ge=1, le=1000, description="records that are committed together")
    empty: Literal["report", "accept"] = Field(
        "report", description="an empty file is mostly an export that failed: a dead letter; or nothing to do"
    )
    same_content: Literal["ask", "skip", "take"] = Field(
        "ask",
        description=(
            "bytes that were taken before, under a new name: ask a person (a dead letter), skip them (a partner that sends "
            "again under new names), or take them (equal files on purpose, such as an unchanged stock list)"
        ),
    )
    reused_names: bool = Field(
        False,
        description="the partner uses one name again and again, so the same bytes under the same name may be new as well",
    )
    force_polling: bool = Field(False, description="look every 300 ms; for shares that send no notices")

    @field_validator("pattern")
    @classmethod
    def _is_about_names(cls, pattern: str) -> str:
        if "/" in pattern:
            raise ValueError("the pattern is over names inside the folder; set `folder` for the path")
        return pattern


class Acknowledgement(_Settings):
    """How the partner answers a file: with another one."""

    folder: str = Field(min_length=1, description="absolute, or relative to `folder`")
    accepted: str = Field("{name}.ack", description="glob; {name} is the file name, {stem} the same without its suffix")
    rejected: str | None = Field("{name}.nak", description="glob of the answer that says no")
    every: Duration = Field("30s", validate_default=True, description="how often it is asked for")


class SinkSettings(_Settings):
    """Where files are left for a partner, and how it is found out whether it took one."""

    folder: str = Field(min_length=1, description="absolute, or relative to the estate folder; it must exist")
    name: str = Field(
        "{subject}-{key}.{suffix}",
        description="must hold {key}; also {subject}, {partition}, {entity}, {flow}, {suffix}",
    )
    format: FormatSettings = JsonSettings()
    done_marker: str | None = Field(
        None, pattern=r"^\.[A-Za-z0-9_.-]{1,20}$", description="after plan.json comes plan.json and this suffix, empty"
    )
    taken_to: tuple[str, ...] = Field(
        (), description="where the partner moves what it took: its archive; relative to `folder`"
    )
    taken_as: str = Field("{name}*", description="glob of the name it has there; {name} or {stem}")
    acknowledgement: Acknowledgement | None = None
    partner_deletes: bool = Field(
        False, description="the partner deletes what it took, so that a missing file says nothing"
    )

    @field_validator("name")
    @classmethod
    def _is_unique(cls, name: str) -> str:
        if unknown := unknown_placeholders(name):
            raise ValueError(f"unknown {', '.join(unknown)}; known: {', '.join(PLACEHOLDERS)}")
        if "{key}" not in name or "/" in name:
            raise ValueError("a file name that holds {key}, so that no two deliveries share one, and no folder")
        return name

    @property
    def can_be_asked(self) -> bool:
        """Whether a file that is nowhere was not taken: in doubt, the folder, the archive and the answers tell."""
        return bool(self.taken_to or self.acknowledgement) or not self.partner_deletes
