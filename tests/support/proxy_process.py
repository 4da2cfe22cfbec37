"""The process of `tests.support.proxy`: passes on what comes to its ports, until it is told to cut one.

Started as `python -m tests.support.proxy_process PORT=TARGET …`; reads lines of JSON, `{"port": …, "whole": …}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

READ_BYTES = 64 << 10


class Way:
    """From a port to its target. What is open while it is cut hangs, and ends when it is whole again."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.whole = asyncio.Event()
        self.whole.set()
        self.open: set[asyncio.StreamWriter] = set()

    def set_whole(self, whole: bool) -> None:
        if not whole:
            self.whole.clear()
            return
        for writer in self.open:
            writer.transport.abort()
        self.whole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        others: asyncio.StreamWriter | None = None
        try:
            await self.whole.wait()
            there, others = await asyncio.open_connection("127.0.0.1", self.target)
            self.open.add(others)
            await asyncio.gather(self._pass(reader, others), self._pass(there, writer))
        except OSError:
            pass
        finally:
            for one in (writer, others):
                if one is not None:
                    self.open.discard(one)
                    one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            await self.whole.wait()
            writer.write(data)
            await writer.drain()
        await self.whole.wait()
        with suppress(OSError):
            writer.write_eof()


async def main() -> None:
    ways: dict[int, Way] = {}
    for word in sys.argv[1:]:
        port, target = map(int, word.split("="))
        ways[port] = Way(target)
        await asyncio.start_server(ways[port].serve, "127.0.0.1", port)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await orders.readline():
        order = json.loads(line)
        ways[order["port"]].set_whole(order["whole"])


if __name__ == "__main__":
    asyncio.run(main())
