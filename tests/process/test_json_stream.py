"""The JSON stream of a relay and of an edge behind it: the same messages, once, across kills and resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import Writer
from tests.support.websocket import connect

pytestmark = pytest.mark.slow

ON = {"RELAY_JSON_STREAM": "true"}


class Consumer:
    """Reads messages, and goes on after the newest one when its connection ends: by time, or by seq."""

    def __init__(self, relay: RelayProcess, *, by_seq: bool = False) -> None:
        self.url = relay.url.replace("http:", "ws:") + "/subscribe"
        self.by_seq = by_seq
        self.messages: list[dict[str, Any]] = []
        self._greenlet = gevent.spawn(self._run)

    @property
    def cursor(self) -> str:
        if not self.messages:
            return "seq:0"
        return f"seq:{self.messages[-1]['seq']}" if self.by_seq else str(self.messages[-1]["time_us"])

    def _run(self) -> None:
        while True:
            with (
                suppress(OSError, InvalidHandshake, ConnectionClosed),
                connect(f"{self.url}?cursor={self.cursor}", max_size=None) as stream,
            ):
                for message in stream:
                    self.messages.append(json.loads(message))
            gevent.sleep(0.05)

    def stop(self) -> None:
        self._greenlet.kill()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[tuple[Writer, RelayProcess, RelayProcess]]:
    with FakePlc() as plc, FakePds() as pds:
        relay = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": plc.url, **ON})
        relay.start()
        relay.crawl(pds.url)
        mode = {"RELAY_MODE": "edge", "RELAY_EDGE_UPSTREAM": relay.url, "RELAY_EDGE_BACKFILL": "true"}
        edge = RelayProcess(tmp_path / "edge", {**mode, **ON})
        edge.start()
        yield Writer(plc, pds), relay, edge
        edge.close()
        relay.close()


def test_every_message_once_across_kills(network: tuple[Writer, RelayProcess, RelayProcess]) -> None:
    writer, relay, edge = network
    consumers = [Consumer(relay), Consumer(relay, by_seq=True), Consumer(edge), Consumer(edge, by_seq=True)]
    writer.write(1)
    # From then on the host is known: the past of a new one may be passed over.
    relay.wait_until(lambda: all(consumer.messages for consumer in consumers), 30)
    writing = gevent.spawn(writer.write, 600)
    for killed in (relay, edge, relay):
        gevent.sleep(0.5)
        killed.kill()
        killed.start()
    writing.get(timeout=120)
    for consumer in consumers:
        relay.wait_until(lambda: len(consumer.messages) >= writer.total, 30)  # noqa: B023
        times = [message["time_us"] for message in consumer.messages]
        assert times == sorted(set(times))
        assert len(consumer.messages) == writer.total
    relays, edges = consumers[0].messages, consumers[2].messages
    assert consumers[1].messages == relays and consumers[3].messages == edges
    # An edge has its own clock, and nothing else of its own.
    assert [message | {"time_us": 0} for message in edges] == [message | {"time_us": 0} for message in relays]
    for consumer in consumers:
        consumer.stop()


def test_nothing_of_it_is_loaded_where_it_is_off() -> None:
    program = """
import sys
for name in ("orjson", "zstandard", "relay.jsonstream"):
    sys.modules[name] = None
import relay.patched, relay.app
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_dictionary_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "dictionary").write_bytes(b"no dictionary")
    settings = ON | {"RELAY_JSON_ZSTD_DICTIONARY": str(tmp_path / "dictionary")}
    relay = RelayProcess(tmp_path / "relay", settings)
    with pytest.raises(AssertionError, match=r"RELAY_JSON_ZSTD_DICTIONARY: .* is not a zstd dictionary"):
        relay.start()
    relay.close()
