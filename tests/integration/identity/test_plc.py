"""The resolver against the real PLC directory server, where the reference network is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.atproto.crypto import parse_multikey
from relay.atproto.hostname import Endpoint
from relay.identity import negatives
from relay.identity.resolver import Resolver
from relay.kit.errors import IdentityError
from relay.kit.generations import RecordCache
from relay.net.http import GuardedHttp
from relay.store.database import Database
from tests.support.child import Child

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "e2e" / "node_modules"


@pytest.fixture
def directory() -> Iterator[Child]:
    if not MODULES.exists():
        pytest.skip("the reference network is not installed; tests/e2e/install.sh does it")
    node = next(MODULES.glob("node-linux-*/bin/node"))
    child = Child([node, HERE / "plc.cjs", MODULES], env={"LOG_ENABLED": "false"})
    yield child
    child.close()


def test_keys_of_both_curves_a_rotation_and_a_tombstone(
    directory: Child, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That a known DID is gone is believed the second time, and of one that nobody knew it is asked again.
    monkeypatch.setattr(negatives, "BELIEVED_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (0.01,))
    ready = json.loads(directory.wait_for('"url"'))
    dids: dict[str, dict[str, Any]] = ready["dids"]
    resolver = Resolver(
        database, GuardedHttp("test", allow_insecure=False), plc_hosts=(ready["url"],), memory=RecordCache(100)
    )
    resolver.start()
    for name, made in dids.items():
        identity = resolver.resolve(made["did"])
        assert identity.key is not None
        assert identity.key == parse_multikey(made["keys"][0].removeprefix("did:key:"))
        assert (identity.pds, identity.handle) == (Endpoint("pds.example.com", True), f"{name}.example.com")
    directory.send({"action": "rotate and bury"})
    rotated = json.loads(directory.wait_for('{"rotated"'))["rotated"]
    resolver.refresh(dids["rotated"]["did"], "pds.example.com")
    fresh = resolver.known.cached(dids["rotated"]["did"])
    assert fresh is not None and fresh.key is not None
    assert fresh.key == parse_multikey(rotated.removeprefix("did:key:"))
    with pytest.raises(IdentityError) as error:
        resolver.refresh(dids["tombstone"]["did"], "pds.example.com")
        resolver.known.cached(dids["tombstone"]["did"])
    # The public directory says 410; this version of the server does not tell it from a DID that never was.
    assert error.value.reason in ("did-tombstone", "did-not-found")
    with pytest.raises(IdentityError) as error:
        resolver.resolve("did:plc:" + "a" * 24)
    assert error.value.reason == "did-not-found"
    resolver.stop()
