"""The README's consumer examples, taken out of the document and run against a relay on two real sockets."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.network import MODULES, node
from tests.support.child import Child
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import ROOT, RelayProcess
from tests.support.through import Writer

README = (ROOT / "README.md").read_text(encoding="utf-8")
HERE = "ws://127.0.0.1:2470/xrpc/com.atproto.sync.subscribeRepos"
EVENTS = 20


@pytest.fixture
def written(tmp_path: Path) -> Iterator[tuple[RelayProcess, Writer]]:
    """A relay that has logged some commits, and who wrote them."""
    with FakePlc() as plc, FakePds() as pds:
        relay = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": plc.url})
        relay.start()
        relay.crawl(pds.url)
        writer = Writer(plc, pds)
        # From the first event on the host is known: the past of a new one may be passed over.
        writer.write(1)
        relay.wait_metric("relay_events_logged_total", 1)
        writer.write(EVENTS - 1)
        yield relay, writer
        relay.close()


def example(language: str, url: str) -> str:
    """The only block in a language, at the relay's address instead of the one that is written there."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert HERE in found
    return str(found).replace(HERE, url)


def sees_everything(command: list[str | Path], writer: Writer) -> None:
    """The example, run as a process, prints each commit of the writer: its seq, the action and the record's address."""
    child = Child(command, cwd=ROOT)
    try:
        child.wait_until(lambda: len(child.lines) >= writer.total, 60)
        lines = [
            re.fullmatch(r"(\d+) create at://(did:[^/]+)/(app\.bsky\.feed\.post/\d+)", line) for line in child.lines
        ]
        assert all(lines), child.lines
        found = [line for line in lines if line]
        seqs = [int(line[1]) for line in found]
        assert seqs == sorted(set(seqs))
        assert {line[2] for line in found} == {did for did, revs in writer.written.items() if revs}
        assert len({line[3] for line in found}) == writer.total
    finally:
        child.close()


def test_the_python_example(written: tuple[RelayProcess, Writer], tmp_path: Path) -> None:
    relay, writer = written
    file = tmp_path / "consumer.py"
    file.write_text(example("python", relay.firehose))
    sees_everything([sys.executable, file], writer)


@pytest.mark.skipif(not MODULES.exists(), reason="Node is not installed; tests/e2e/install.sh does it")
def test_the_javascript_example(written: tuple[RelayProcess, Writer], tmp_path: Path) -> None:
    relay, writer = written
    # Modules are looked for beside the file.
    (tmp_path / "node_modules").symlink_to(MODULES.resolve())
    file = tmp_path / "consumer.mjs"
    file.write_text(example("js", relay.firehose))
    sees_everything([node(), file], writer)
