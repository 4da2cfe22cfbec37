"""Which messages a consumer wants: the filter of its request, or of the last `options_update` that it sent.

Pure: between the pieces of a long one it calls whoever asked. The rules are those of Jetstream, its leniency included,
since its clients rely on both:

1. `wantedCollections` are NSIDs, or prefixes that end in `.*` and are not checked any further; a hundred at most.
   They are about commits alone: `#identity` and `#account` come whatever is asked for.
2. `wantedDids` are DIDs, ten thousand at most, and hold for every kind.
3. What stands twice counts once.
4. `maxMessageSizeBytes` is bytes of JSON; 0, nothing, a negative number, or what is not a number sets no bound.
   Where a parameter that has one value is repeated, the first counts.
5. `kinds` is ours: `commit`, `identity`, `account`, `sync`; without it, all but `sync`, which Jetstream does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.syntax import check_did, check_nsid
from relay.jsonstream.integers import whole_number

MAX_COLLECTIONS = 100
MAX_DIDS = 10_000
KINDS = ("commit", "identity", "account", "sync")
USUAL_KINDS = frozenset(KINDS) - {"sync"}
SIZES_END = 2**32
# A text in a set, beside its characters.
TEXT_OVERHEAD = 110
# So many DIDs are checked together, which takes a tenth of a millisecond.
TOGETHER = 100

Pause = Callable[[], None]


class FilterInvalid(ValueError):
    """What a filter must not be, in words for whoever sent it."""


class Filter(NamedTuple):
    """Immutable, and equal to any other that lets the same through. An empty set or tuple lets everything through.
    `size` is bytes of memory, about.
    """

    kinds: frozenset[str] = USUAL_KINDS
    collections: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    dids: frozenset[str] = frozenset()
    max_bytes: int = 0
    size: int = 0

    def takes(self, kind: str, collection: str) -> bool:
        """Whether messages of this kind are wanted; `collection` is that of a commit's record."""
        if kind not in self.kinds:
            return False
        if kind != "commit" or not (self.collections or self.prefixes):
            return True
        return collection in self.collections or collection.startswith(self.prefixes)


def _nothing() -> None:
    pass


def of_query(
    collections: Sequence[str],
    dids: Sequence[str],
    max_bytes: str | None,
    kinds: Sequence[str] = (),
    pause: Pause = _nothing,
) -> Filter:
    """The filter of a request's parameters. Calls `pause` after each piece of the work. Raises FilterInvalid."""
    return _filter(collections, dids, whole_number(max_bytes or "", SIZES_END) or 0, kinds, pause)


def of_update(payload: Any, kinds: frozenset[str], pause: Pause = _nothing) -> Filter:
    """The filter of an `options_update`, which replaces all but the kinds; `pause` as above. Raises FilterInvalid.

    As Go's decoder has it, names are taken in any case, and null for what is not there, the payload itself included.
    """
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise FilterInvalid("the payload is not an object")
    payload = {name.lower(): value for name, value in payload.items()}
    max_bytes = payload.get("maxmessagesizebytes") or 0
    if type(max_bytes) is not int:
        raise FilterInvalid("maxMessageSizeBytes is not an integer")
    collections, dids = (_texts(payload, name) for name in ("wantedCollections", "wantedDids"))
    return _filter(collections, dids, max_bytes, (), pause)._replace(kinds=kinds)


def _texts(payload: dict[str, Any], name: str) -> list[str]:
    texts = payload.get(name.lower()) or []
    if not isinstance(texts, list) or not all(type(text) is str for text in texts):
        raise FilterInvalid(f"{name} is not an array of strings")
    return texts


def _filter(
    collections: Sequence[str], dids: Sequence[str], max_bytes: int, kinds: Sequence[str], pause: Pause
) -> Filter:
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise FilterInvalid(f"kinds is one of {', '.join(KINDS)}, not {min(unknown)[:80]!r}")
    wanted, wanted_dids = set(collections), frozenset(dids)
    if len(wanted) > MAX_COLLECTIONS:
        raise FilterInvalid(f"{len(wanted)} wantedCollections, the maximum is {MAX_COLLECTIONS}")
    if len(wanted_dids) > MAX_DIDS:
        raise FilterInvalid(f"{len(wanted_dids)} wantedDids, the maximum is {MAX_DIDS}")
    prefixes = {text for text in wanted if text.endswith(".*")}
    size = sum(map(len, wanted))
    try:
        for text in wanted - prefixes:
            check_nsid(text)
        for number, text in enumerate(wanted_dids):
            if not number % TOGETHER:
                pause()
            check_did(text)
            size += len(text)
    except SyntaxInvalid as error:
        raise FilterInvalid(str(error)) from None
    return Filter(
        frozenset(kinds) or USUAL_KINDS,
        frozenset(wanted - prefixes),
        tuple(sorted(text.removesuffix("*") for text in prefixes)),
        wanted_dids,
        max(max_bytes, 0),
        size + TEXT_OVERHEAD * (len(wanted) + len(wanted_dids)),
    )
