"""Opens a Merkle search tree as far as it came along, and proves that every node of that keeps the rules.

Called by `commit` before anything is undone or looked up: consumers read these nodes, too, and some of their verifiers
fail badly on a malformed one, even away from the paths of the operations. What nobody can reach from the root is not
read. Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from relay.atproto.mst_read import HIGHEST, LOWEST, Place, Read, read

REASONS = frozenset({"mst-size"})

# What the nodes of one commit may take up together, bytes. Two hundred operations need a tenth of it. Each key of a
# node costs a hash, and keys can be mined so that one node has as many as there is room for.
MAX_NODES_SIZE = 1_000_000
# And one of them. Of every four keys one stands higher, so that among billions of nodes none comes to a hundred entries
# but where keys are mined.
MAX_NODE_SIZE = 100_000

Opened: TypeAlias = dict[bytes, Read]
"""The nodes that came along, by the bytes of their ids."""


def open_tree(root: Cid, blocks: Mapping[bytes, bytes], pause: Callable[[], None] | None = None) -> Opened:
    """Read every node that is in `blocks` and can be reached from `root`; none when the root itself is not there.

    `pause` is called before each. Raises MstError: one is malformed, out of order, on a wrong layer, in two places or
    too large, or they are too much together.
    """
    opened: Opened = {}
    room = MAX_NODES_SIZE
    places: list[Place] = [(root, None, LOWEST, HIGHEST)]
    for place in places:
        cid = place[0]
        data = blocks.get(cid)
        if data is None:
            break
        room -= len(data)
        if room < 0:
            raise MstError("mst-size", f"over {MAX_NODES_SIZE} bytes of nodes")
        if len(data) > MAX_NODE_SIZE:
            raise MstError("mst-size", f"a node of {len(data)} bytes")
        if pause is not None:
            pause()
        # A subtree has keys somewhere below, and a key has one place only.
        if cid in opened:
            raise MstError("mst-key-order", "one subtree in two places")
        opened[cid] = read(place, data, blocks, places)
    return opened
