"""Groups of commands in the one style: plain help, no tracebacks of typer's own, and commands loaded when they are named."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMPLETE_VARIABLE = "_DISTCTL_COMPLETE"
EVERYWHERE = (
    "Options of every command: -o/--output, --socket, --data, --site, --token-file, --no-color; see `distctl --help`."
)


def new_app(**options: Any) -> typer.Typer:
    """An empty group; with one command in it and no callback it is that command."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def lazy_group(table: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group of `name: (module, help)`. Its help loads none of the modules; each has its commands in `app`."""

    class LazyGroup(TyperGroup):
        # typer carries a click of its own since 0.26 and uses the real one before; Any fits both.
        def list_commands(self, _ctx: Any) -> list[str]:
            return list(table)

        def get_command(self, _ctx: Any, cmd_name: str) -> Any:
            if cmd_name in table and cmd_name not in self.commands:
                self.commands[cmd_name] = _load(cmd_name, table[cmd_name][0])
            return self.commands.get(cmd_name)

        def format_commands(self, _ctx: Any, formatter: Any) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, text) for name, (_, text) in table.items()])

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args[0] not in table and not args[0].startswith("-"):
                near = get_close_matches(args[0], table, n=1)
                ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
            return super().resolve_command(ctx, args)

    return LazyGroup


def _load(name: str, module: str) -> Any:
    command = get_command(import_module(module).app)
    command.name = name
    command.epilog = command.epilog or EVERYWHERE
    for one in (command, *getattr(command, "commands", {}).values()):
        _complete_options_of_every_command(one)
    return command


def _complete_options_of_every_command(command: Any) -> None:
    """They may stand behind the command, so there too they are completed."""
    complete_own = command.shell_complete

    def complete(ctx: Any, incomplete: str) -> list[Any]:
        found = list(complete_own(ctx, incomplete))
        if incomplete.startswith("-"):
            own = {one.value for one in found}
            root = ctx.find_root()
            found += [one for one in root.command.shell_complete(root, incomplete) if one.value not in own]
        return found

    command.shell_complete = complete
