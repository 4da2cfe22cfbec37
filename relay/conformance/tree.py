"""A repository's tree straight from its definition, small enough to be made anew for each commit; used by `repository`.

https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise

from relay.atproto import drisl
from relay.atproto.cid import Cid


def layer_of(path: str) -> int:
    """Leading zero bits of the path's sha-256, in pairs."""
    return (256 - int.from_bytes(sha256(path.encode()).digest(), "big").bit_length()) // 2


def tree_of(records: Mapping[str, Cid]) -> tuple[Cid, dict[Cid, bytes]]:
    """The root of the tree that holds these records by path, and all of its nodes."""
    nodes: dict[Cid, bytes] = {}
    paths = sorted(records)
    top = max(map(layer_of, paths), default=0)
    root = _subtree(paths, top, records, nodes)
    return root if root is not None else add_node([], None, nodes), nodes


def _subtree(paths: list[str], layer: int, records: Mapping[str, Cid], nodes: dict[Cid, bytes]) -> Cid | None:
    if not paths:
        return None
    here = [i for i, path in enumerate(paths) if layer_of(path) == layer]
    left, *rights = [
        _subtree(paths[before + 1 : after], layer - 1, records, nodes)
        for before, after in pairwise([-1, *here, len(paths)])
    ]
    entries = [(paths[i], records[paths[i]], right) for i, right in zip(here, rights, strict=True)]
    return add_node(entries, left, nodes)


def add_node(entries: list[tuple[str, Cid, Cid | None]], left: Cid | None, nodes: dict[Cid, bytes]) -> Cid:
    """Encode one node of (path, record, subtree after it), as it is given: a scenario may give what breaks a rule."""
    encoded: list[drisl.Value] = []
    previous = b""
    for path, record, right in entries:
        key = path.encode()
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        encoded.append({"p": shared, "k": key[shared:], "v": record, "t": right})
        previous = key
    block = drisl.encode({"l": left, "e": list(encoded)})
    cid = Cid.of_dag_cbor(block)
    nodes[cid] = block
    return cid
