"""`distctl init`: a small, commented estate that works at the first try."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from console.cli.group import new_app
from console.cli.session import session_of

app = new_app()


@app.command()
def init(
    context: typer.Context, folder: Annotated[Path, typer.Argument(help="Where; created if it is missing.")] = Path()
) -> None:
    """Write a small working estate to start from."""
    from state.model.errors import ConfigError

    starter = list(_files(files("console.cli") / "starter"))
    taken = [name for name, _ in starter if (folder / name).exists()]
    if taken:
        hint = "name another folder; nothing was written"
        raise ConfigError(f"{folder / taken[0]} exists already", hint=hint, code="exists")
    try:
        for name, file in starter:
            _write(folder / name, file)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}", code="cannot-write") from error
    _tell(context, folder, [name for name, _ in starter])


def _files(folder: Traversable, name: str = "") -> Iterator[tuple[str, Traversable]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        path = f"{name}{one.name}"
        if one.is_dir():
            yield from _files(one, f"{path}/")
        else:
            yield path, one


def _write(path: Path, file: Traversable) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.name != ".keep":
        with path.open("xb") as target:
            target.write(file.read_bytes())


def _tell(context: typer.Context, folder: Path, names: list[str]) -> None:
    output = session_of(context).output
    written = [str(folder / name) for name in names if not name.endswith(".keep")]
    if not output.is_for_people:
        output.record({"folder": str(folder), "files": written})
        return
    for name in written:
        output.line(name)
    output.say(f"Next: distctl check {folder}, then the README.md in it")
