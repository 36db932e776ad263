"""NATS JetStream as a peer: one server, file storage, `sync_interval: always`, so what it acknowledges is on disk as ours is.

It is driven as one who wants throughput drives it: publishes go out without waiting, up to `IN_FLIGHT` unacknowledged ones; a
pull consumer fetches 500 at a time beside them and acknowledges each message.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.identity.testing import free_port, listening
from bench.orders import orders
from bench.rounds import stopwatch
from connectors.simulators.leash import leashed

if TYPE_CHECKING:
    from nats.js import JetStreamContext

IN_FLIGHT: Final = 1000
"""Publishes that wait for their acknowledgement at the same time: as many as a frame of ours has events."""

_FETCHED: Final = 500
_STREAM: Final = "orders"
_SERVER: Final = Path(sys.executable).with_name("nats-server")
_PATIENCE_SECONDS: Final = 60.0


class Nats:
    """A server that runs, with one stream."""

    def __init__(self, stream: JetStreamContext) -> None:
        self._stream = stream

    async def publish(self, count: int) -> float:
        """Messages a second, from the first publish to the last acknowledgement by the server."""
        payloads = orders(count)
        await self._begin_anew()
        with stopwatch() as watch:
            await self._publish(payloads)
        return watch.rate(count)

    async def through(self, count: int) -> float:
        """Messages a second that are published, consumed and acknowledged by the consumer, both sides at once."""
        payloads = orders(count)
        await self._begin_anew()
        with stopwatch() as watch:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._publish(payloads))
                tasks.create_task(self._consume(count))
        return watch.rate(count)

    async def _begin_anew(self) -> None:
        from nats.js.api import StorageType, StreamConfig
        from nats.js.errors import NotFoundError

        with suppress(NotFoundError):
            await self._stream.delete_stream(_STREAM)
        await self._stream.add_stream(StreamConfig(name=_STREAM, subjects=[_STREAM], storage=StorageType.FILE))

    async def _publish(self, payloads: list[bytes]) -> None:
        answers = [await self._stream.publish_async(_STREAM, payload) for payload in payloads]
        await asyncio.gather(*answers)

    async def _consume(self, count: int) -> None:
        from nats.js.api import ConsumerConfig

        config = ConsumerConfig(max_ack_pending=4 * _FETCHED)
        consumer = await self._stream.pull_subscribe(_STREAM, durable="reader", stream=_STREAM, config=config)
        taken = 0
        while taken < count:
            messages = await consumer.fetch(_FETCHED, timeout=_PATIENCE_SECONDS)
            for message in messages:
                await message.ack()
            taken += len(messages)
        while (await consumer.consumer_info()).num_ack_pending:  # the server has not heard the last of them yet
            await asyncio.sleep(0.005)


@asynccontextmanager
async def open_nats(folder: Path) -> AsyncIterator[Nats]:
    """Start a server with its files in `folder`. Raises `SystemExit` where it is not installed."""
    try:
        import nats
    except ImportError as error:
        raise SystemExit("nats-py is not installed: pip install -e '.[bench]', or make bench") from error
    port = free_port()
    command = leashed([str(_SERVER), "-c", str(_configuration(folder, port))])
    with (folder / "nats.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await listening(f"127.0.0.1:{port}")
            client = await nats.connect(f"nats://127.0.0.1:{port}")
            try:
                yield Nats(client.jetstream(publish_async_max_pending=IN_FLIGHT))
            finally:
                await client.close()
        finally:
            process.terminate()


def _configuration(folder: Path, port: int) -> Path:
    path = folder / "nats.conf"
    jetstream = {"store_dir": str(folder / "nats"), "sync_interval": "always"}
    path.write_text(
        json.dumps({"host": "127.0.0.1", "port": port, "jetstream": jetstream})
    )  # JSON is NATS configuration
    return path
