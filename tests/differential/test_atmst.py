"""Against `atmst`: inverting a commit gives the tree that it reaches by doing the opposite writes."""

from __future__ import annotations

import random

import pytest

from relay.atproto import mst
from relay.atproto.cid import Cid
from relay.atproto.frames import RepoOp
from relay.atproto.mst_read import open_tree
from relay.atproto.operations import changes
from tests.support.repo_tree import build

pytest.importorskip("atmst")

from atmst.blockstore import MemoryBlockStore
from atmst.mst.node_store import NodeStore
from atmst.mst.node_wrangler import NodeWrangler
from cbrrr import CID


@pytest.mark.parametrize("seed", range(40))
def test_inversion_as_writes(seed: int) -> None:
    rng = random.Random(seed)
    paths = [f"com.example.thing/{rng.randrange(10**6)}" for _ in range(rng.choice([1, 5, 40, 300]))]
    records = {path: Cid.of_dag_cbor(path.encode()) for path in paths}
    nodes: dict[bytes, bytes] = {}
    root = build(records, nodes)

    store = MemoryBlockStore()
    for cid, block in nodes.items():
        store.put_block(cid, block)
    wrangler = NodeWrangler(NodeStore(store))
    theirs = CID(root)
    ops = []
    for path in rng.sample(sorted(records), min(len(records), rng.randint(1, 30))):
        if rng.random() < 0.5:
            prev = Cid.of_dag_cbor(b"old " + path.encode())
            ops.append(RepoOp("update", path, records[path], prev))
            theirs = wrangler.put_record(theirs, path, CID(prev))
        else:
            ops.append(RepoOp("create", path, records[path], None))
            theirs = wrangler.del_record(theirs, path)
    for number in range(rng.randint(0, 10)):
        path, prev = f"com.example.gone/{number}", Cid.of_dag_cbor(b"%d" % number)
        ops.append(RepoOp("delete", path, None, prev))
        theirs = wrangler.put_record(theirs, path, CID(prev))

    opened = open_tree(Cid(root), nodes)
    assert mst.invert(Cid(root), changes(ops), opened) == bytes(theirs)
