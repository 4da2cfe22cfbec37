"""An account whose commits change the same records to and fro: each is sound, new and dear, and signed in no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice

from tests.support.blocks import car, cid_of, link, varint
from tests.support.repo import RepoBuilder, SigningKey, account_did, frame, timestamp
from tests.support.repo_tree import build, layer_of

VALUE = cid_of(b"\xa0")


def paths_on(layer: int, number: int, step: int = 1) -> list[str]:
    """So many paths on a layer of the tree, spread by `step`."""
    names = (f"a.b.c/{index * step:07d}{'x' * (step > 1)}" for index in count())
    return list(islice((path for path in names if layer_of(path) == layer), number))


class Swing:
    """The account of a `number`: all of its tree and the records of `paths` come along with every commit.

    `record(side, index)` is the record of a path on the side that the account swings to; `others` are paths that stay.
    """

    def __init__(
        self,
        number: int,
        others: Sequence[str],
        paths: Sequence[str],
        record: Callable[[int, int], bytes],
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.did = account_did(number)
        self.key = SigningKey.create(seed=number)
        self._repo = RepoBuilder(self.did, self.key)
        self._side = 0
        records = [{path: record(side, index) for index, path in enumerate(paths)} for side in (0, 1)]
        self._cids = [{path: cid_of(block) for path, block in each.items()} for each in records]
        self._roots, self._sections = [], []
        for cids, each in zip(self._cids, records, strict=True):
            nodes: dict[bytes, bytes] = {}
            self._roots.append(build(dict.fromkeys(others, VALUE) | cids, nodes))
            along = {**nodes, **{cid_of(block): block for block in each.values()}, **(blocks or {})}
            parts = [part for cid, block in along.items() for part in (varint(len(cid) + len(block)), cid, block)]
            self._sections.append(b"".join(parts))

    @property
    def rev(self) -> str:
        """That of the last commit."""
        return self._repo.rev or ""

    def frame(self, seq: int) -> bytes:
        """The next commit."""
        repo, before, after = self._repo, self._side, 1 - self._side
        self._side = after
        since, repo.data = repo.rev, self._roots[after]
        repo._sign(self.key, {}, None)
        ops = [
            {"action": "update", "path": path, "cid": link(cid), "prev": link(self._cids[before][path])}
            for path, cid in self._cids[after].items()
        ]
        fields = {
            "seq": seq,
            "repo": self.did,
            "rev": repo.rev,
            "since": since,
            "commit": link(repo.head),
            "prevData": link(self._roots[before]),
            "time": timestamp(repo.micros),
            "blobs": [],
            "rebase": False,
            "tooBig": False,
            "ops": ops,
            "blocks": car([repo.head], {repo.head: repo.head_block}) + self._sections[after],
        }
        return frame("#commit", fields)
