"""Requests and updates that are odd, but legal: the JSON stream answers them as the original Jetstream does.

JETSTREAM names its binary, as for `tests.bench.jsonstream`; without it nothing runs. What is known to differ is not
here: docs/json-stream.md says what is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.bench.jsonstream.contenders import JetstreamProcess, jetstream_binary
from tests.support.relay_process import RelayProcess
from tests.support.websocket import connect

BINARY, WHY = jetstream_binary()
if BINARY is None:
    pytest.skip(WHY, allow_module_level=True)

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
POST = "app.bsky.feed.post"
# Long enough for an answer: each server has a second in which it looks at what came.
ANSWER_SECONDS = 3.0

QUERIES = [
    *(f"cursor={text}" for text in ("", "0", "+5", "%2B5", "0005", "5.0", "1e3", "0x10", "1_000", "%201", "x")),
    *(f"cursor={number}" for number in (2**63 - 1, 2**63, 10**30)),
    "cursor=1&cursor=x",
    "cursor=x&cursor=1",
    "Cursor=x",
    *(f"wantedCollections={text}" for text in ("", "*", ".*", "app.*", f"{POST}*", f"{POST},{POST}", "app.bsky")),
    *(f"wantedCollections={text}" for text in ("App.Bsky.feed.Post", "com.1example.foo", "com.example.foo-bar")),
    "&".join(f"wantedCollections=com.example.n{number}" for number in range(100)),
    "&".join(f"wantedCollections=com.example.n{number}" for number in range(101)),
    "&".join([f"wantedCollections={POST}"] * 150),
    *(
        f"wantedDids={text}"
        for text in ("", "did:x:y", "did:key:zQ3", "did:web:localhost%253A80", "DID:plc:x", "did:plc:")
    ),
    f"wantedDids={DID},{DID}",
    *(f"maxMessageSizeBytes={text}" for text in ("x", "-1", "1e9", "9" * 20)),
    *(f"requireHello={text}" for text in ("1", "true")),
    *(f"compress={text}" for text in ("false", "1", "TRUE")),
]
UPDATES = [
    "{}",
    "null",
    "",
    "{'type': 'x'}",
    '{"type": null}',
    '{"type": "of another time", "payload": 1}',
    '{"type": "options_update"}',
    '{"type": "options_update", "payload": null}',
    '{"type": "options_update", "payload": []}',
    '{"TYPE": "options_update", "Payload": {"wantedDIDs": ["x"]}}',
    '{"type": "OPTIONS_UPDATE", "payload": {"wantedDids": ["x"]}}',
    '{"type": "options_update", "payload": {}}{}',
    *(
        f'{{"type": "options_update", "payload": {{{payload}}}}}'
        for payload in (
            '"wantedCollections": null',
            '"wantedCollections": "x"',
            '"wantedCollections": [""]',
            '"wantedCollections": [null]',
            '"wantedCollections": ["app.*", "*"]',
            f'"wantedDids": ["{DID}", "{DID}"]',
            '"maxMessageSizeBytes": "5"',
            '"maxMessageSizeBytes": 5.5',
            '"maxMessageSizeBytes": 1e3',
            '"maxMessageSizeBytes": -1',
            '"maxMessageSizeBytes": true',
            '"cursor": 5, "compress": true',
        )
    ),
]


class Two(NamedTuple):
    """The addresses of both streams."""

    ours: str
    theirs: str


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    assert BINARY
    folder = Path(tempfile.mkdtemp())
    relay = RelayProcess(folder / "relay", {"RELAY_JSON_STREAM": "true", "RELAY_PLC_HOST": "http://127.0.0.1:9"})
    jetstream = JetstreamProcess(BINARY, folder / "jetstream", relay)
    try:
        relay.start()
        jetstream.start()
        yield Two(*(url.replace("http", "ws") + "/subscribe" for url in (relay.url, jetstream.url)))
    finally:
        jetstream.close()
        relay.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:60])
def test_both_give_a_request_the_same_answer(two: Two, query: str) -> None:
    def status(url: str) -> int:
        try:
            with connect(f"{url}?{query}", compression=None):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    assert status(two.ours) == status(two.theirs)


@pytest.mark.parametrize("update", UPDATES)
def test_both_go_on_or_end_after_the_same_updates(two: Two, update: str) -> None:
    def goes_on(url: str) -> bool:
        with connect(url, compression=None) as client:
            client.send(update)
            try:
                client.recv(timeout=ANSWER_SECONDS)
            except TimeoutError:
                return True
            except ConnectionClosed:
                pass
            return False

    assert goes_on(two.ours) == goes_on(two.theirs)
