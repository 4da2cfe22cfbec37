"""A repository's tree for tests, made without any code of `relay.atproto`. Used by `repo`.

A node is never changed: every operation copies the path that it touches, about 0.4 ms a commit on 2,000 records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any

from tests.support.blocks import cbor, cid_of, link


@lru_cache(maxsize=200_000)
def layer_of(path: str) -> int:
    """Leading zero bits of sha-256, in pairs."""
    bits = 256 - int.from_bytes(sha256(path.encode()).digest()).bit_length()
    return bits // 2


class Node:
    """One node: `children[i]` is the subtree before `keys[i]`, the last one the subtree after all keys."""

    __slots__ = ("block", "children", "cid", "keys", "layer", "values")

    def __init__(self, layer: int, keys: list[str], values: list[bytes], children: list[Node | None]) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.children = children
        self.cid: bytes | None = None
        self.block = b""


class Tree:
    """Operations on immutable nodes. `seen` collects the nodes that had to be opened, by their CID."""

    def __init__(self) -> None:
        self.seen: dict[bytes, bytes] = {}

    def _open(self, node: Node) -> Node:
        if node.cid is not None:
            self.seen[node.cid] = node.block
        return node

    def put(self, node: Node | None, path: str, value: bytes) -> Node:
        """The tree with `path` set to `value`."""
        layer = layer_of(path)
        if node is None:
            return Node(layer, [path], [value], [None, None])
        if layer > node.layer:
            left, right = self._split(node, path)
            return Node(layer, [path], [value], [_lift(left, layer - 1), _lift(right, layer - 1)])
        self._open(node)
        i = bisect_left(node.keys, path)
        if layer < node.layer:
            child = _lift(self.put(node.children[i], path, value), node.layer - 1)
            return Node(node.layer, node.keys, node.values, _spliced(node.children, i, 1, child))
        if i < len(node.keys) and node.keys[i] == path:
            return Node(node.layer, node.keys, _spliced(node.values, i, 1, value), node.children)
        left, right = self._split(node.children[i], path)
        return Node(
            layer,
            _spliced(node.keys, i, 0, path),
            _spliced(node.values, i, 0, value),
            _spliced(node.children, i, 1, left, right),
        )

    def remove(self, node: Node | None, path: str) -> Node | None:
        """The tree without `path`, which must be in it. Not trimmed at the top."""
        if node is None:
            raise KeyError(path)
        self._open(node)
        i = bisect_left(node.keys, path)
        if i < len(node.keys) and node.keys[i] == path:
            child = self._merge(node.children[i], node.children[i + 1])
            return _pruned(
                Node(
                    node.layer,
                    _spliced(node.keys, i, 1),
                    _spliced(node.values, i, 1),
                    _spliced(node.children, i, 2, child),
                )
            )
        child = self.remove(node.children[i], path)
        return _pruned(Node(node.layer, node.keys, node.values, _spliced(node.children, i, 1, child)))

    def trim(self, node: Node | None) -> Node:
        """The tree without entry-less nodes at the top; the empty tree is one empty node."""
        while node is not None and not node.keys:
            node = self._open(node).children[0]
        return node or Node(0, [], [], [None])

    def _split(self, node: Node | None, path: str) -> tuple[Node | None, Node | None]:
        if node is None:
            return None, None
        self._open(node)
        i = bisect_left(node.keys, path)
        left, right = self._split(node.children[i], path)
        return (
            _pruned(Node(node.layer, node.keys[:i], node.values[:i], [*node.children[:i], left])),
            _pruned(Node(node.layer, node.keys[i:], node.values[i:], [right, *node.children[i + 1 :]])),
        )

    def _merge(self, left: Node | None, right: Node | None) -> Node | None:
        if left is None or right is None:
            return left or right
        self._open(left)
        self._open(right)
        middle = self._merge(left.children[-1], right.children[0])
        return Node(
            left.layer,
            left.keys + right.keys,
            left.values + right.values,
            [*left.children[:-1], middle, *right.children[1:]],
        )


def _spliced(items: list[Any], start: int, count: int, *new: Any) -> list[Any]:
    return [*items[:start], *new, *items[start + count :]]


def _pruned(node: Node) -> Node | None:
    return node if node.keys or node.children[0] else None


def _lift(node: Node | None, layer: int) -> Node | None:
    """The subtree with entry-less nodes on top, so that it stands at `layer`."""
    while node is not None and node.layer < layer:
        node = Node(node.layer + 1, [], [], [node])
    return node


def encode(node: Node, blocks: dict[bytes, bytes]) -> bytes:
    """The node's CID. Every node encoded for the first time is added to `blocks`."""
    if node.cid is None:
        links = [None if child is None else link(encode(child, blocks)) for child in node.children]
        entries, previous = [], b""
        for path, value, right in zip(node.keys, node.values, links[1:], strict=True):
            key = path.encode()
            shared = shared_length(previous, key)
            entries.append({"p": shared, "k": key[shared:], "v": link(value), "t": right})
            previous = key
        node.block = cbor({"l": links[0], "e": entries})
        node.cid = cid_of(node.block)
        blocks[node.cid] = node.block
    return node.cid


def shared_length(previous: bytes, key: bytes) -> int:
    """How many bytes the two begin with in common."""
    shared = 0
    while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
        shared += 1
    return shared


def build(records: Mapping[str, bytes], blocks: dict[bytes, bytes]) -> bytes:
    """The tree of `records` straight from its definition; returns the root's CID."""
    return encode(grown(records), blocks)


def grown(records: Mapping[str, bytes]) -> Node:
    """The tree of `records` straight from its definition."""

    def subtree(paths: list[str], layer: int) -> Node | None:
        if not paths:
            return None
        here = [i for i, path in enumerate(paths) if layer_of(path) == layer]
        keys = [paths[i] for i in here]
        children = [subtree(paths[a + 1 : b], layer - 1) for a, b in pairwise([-1, *here, len(paths)])]
        return Node(layer, keys, [records[key] for key in keys], children)

    paths = sorted(records)
    return Tree().trim(subtree(paths, max(map(layer_of, paths), default=0)))
