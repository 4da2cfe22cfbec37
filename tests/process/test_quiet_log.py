"""What an operator reads: few lines of a start, then one a minute. Single hosts and consumers are for `debug`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer

# The first line of figures comes after ten seconds, the next one a minute later.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOSTS = 30
AWAY = 10
CONSUMERS = 12
LINES_OF_A_START = 20


def lines(relay: RelayProcess) -> list[str]:
    return relay.log.read_text(encoding="utf-8").splitlines()


def test_a_start_is_few_lines_and_then_there_is_one_a_minute(tmp_path: Path) -> None:
    with ExitStack() as stack:
        plc = stack.enter_context(FakePlc())
        hosts = [stack.enter_context(FakePds()) for _ in range(HOSTS)]
        relay = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": plc.url})
        stack.callback(relay.close)
        relay.start()
        relay.crawl(*(host.url for host in hosts))
        writer = Writer(plc, hosts[-1])
        consumers = [ResumingConsumer(relay.firehose) for _ in range(CONSUMERS)]
        for consumer in consumers:
            stack.callback(consumer.stop)
        # From the first event on the host is known, and resumed after a stop.
        writer.write(1)
        relay.wait_until(lambda: all(consumer.events for consumer in consumers), 60)
        assert relay.stop() == 0

        for host in hosts[:AWAY]:
            host.refuse_upgrade = 503
        before = len(lines(relay))
        relay.start()
        relay.wait_connected(HOSTS - AWAY, 60)
        writer.write(20)
        hosts[-1].publish(writer.seq + 1, b"\xffnot an event")
        relay.wait_until(lambda: all(len(consumer.events) == 21 for consumer in consumers), 60)
        relay.wait_until(lambda: relay.metric("relay_events_dropped_total", reason="frame-header") == 1, 60)
        figures = f"{HOSTS - AWAY} of {HOSTS} hosts connected; {CONSUMERS} consumers"
        relay.wait_until(lambda: any(figures in line for line in lines(relay)[before:]), 150)
        said = lines(relay)[before:]
        assert len(said) < LINES_OF_A_START, "\n".join(said)
        assert not [line for line in said if " WARNING " in line or " ERROR " in line]
        assert [line for line in said if "reason=frame-header" in line]
