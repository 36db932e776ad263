"""The line between a site and its hub: a process that passes bytes on, and is cut by being killed.

Whoever was talking over it finds the connection broken; whoever dials finds nobody, until it is started again.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from connectors.simulators.service import report_ready, run_until_told

_CHUNK: Final = 65536  # bytes on their way in each direction, at most


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until one of the two hangs up."""
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def main(arguments: argparse.Namespace) -> None:
    """Carry until told to end, or killed."""

    async def connect(near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", arguments.to)
        except OSError:  # nobody is there: the caller finds the line broken
            near_writer.close()
            return
        await asyncio.gather(carry(near_reader, far_writer), carry(far_reader, near_writer))

    server = await asyncio.start_server(connect, "127.0.0.1", arguments.port)
    report_ready(arguments.ready, port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


def parse_arguments() -> argparse.Namespace:
    """The command line of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=int, required=True, help="the port at the far end")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run_until_told(main(parse_arguments()))
