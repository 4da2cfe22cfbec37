"""The parsers of bytes from outside, each as a function that a fuzzer calls: `python -m tests.fuzz.targets NAME …`.

A target returns when its parser refused the input for a listed reason, or took it and a property of what it took
holds. Anything else is a finding. Run by `test_fuzz`, one process a target, under plain CPython.
"""

import sys
from collections.abc import Callable

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None and __name__ == "__main__":
    with atheris.instrument_imports(include=["relay.atproto"]):
        import relay.atproto.commit
        import relay.atproto.diddoc  # noqa: F401

from relay.atproto import car, cid, commit, diddoc, drisl, frames, mst_node, mst_read
from relay.atproto.errors import ProtocolError
from relay.atproto.skim import skim

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def fuzz_value(data: bytes) -> None:
    value, size = drisl.decode_prefix(data)
    assert drisl.encode(value) == data[:size]
    assert drisl.encode(drisl.decode(data)) == data


def fuzz_frame(data: bytes) -> None:
    event = frames.decode(data)
    if isinstance(event, frames.Commit | frames.Sync) and event.fault is not None:
        assert event.fault in frames.REASONS
    elif isinstance(event, frames.Event):
        head, tail = frames.split_at_seq(event)
        again = frames.decode(head + frames.uint(7) + tail)
        assert isinstance(again, frames.Event)
        assert (again.seq, again.did, again.frame) == (7, event.did, head + b"\x07" + tail)


def fuzz_peek(data: bytes) -> None:
    """What a peek tells of a sound event is what the event says."""
    try:
        event = frames.decode(data)
    except ProtocolError:
        event = None
    peeked = frames.peek(data)
    if isinstance(event, frames.Event) and getattr(event, "fault", None) is None:
        assert isinstance(peeked, frames.Peeked)
        assert (peeked.kind, peeked.did, peeked.seq) == (event.kind, event.did, event.seq)


def fuzz_skim(data: bytes) -> None:
    """A field that is found has the value that a decoder finds, where one can read the map."""
    fields, end = skim(data, 0, ("did", "seq", "a"), 1_000, to_end=True)
    assert 0 <= end <= len(data)
    try:
        value, size = drisl.decode_prefix(data)
    except ProtocolError:
        return
    if isinstance(value, dict) and len(data) < 1_000:
        assert end == size
        assert fields == {name: value[name] for name in ("did", "seq", "a") if value.get(name) is not None}


def fuzz_car(data: bytes) -> None:
    parsed = car.parse(data)
    assert all(key[4:] == cid.Cid.of_dag_cbor(block)[4:] for key, block in parsed.blocks.items())
    assert car.root_block(data) == (parsed.root, parsed.blocks[parsed.root])


def fuzz_node(data: bytes) -> None:
    for layer in (None, 0, 3):
        try:
            read = mst_read.read((b"", layer, mst_read.LOWEST, mst_read.HIGHEST), data, (), [])
        except ProtocolError as error:
            assert error.reason in mst_read.REASONS, error
        else:
            _, keys, children, _, _ = read
            assert mst_node.Node.of(b"", read).encoded() in (data, b"")
            assert len(children) == len(keys) + 1
            assert keys == sorted(set(keys))


def fuzz_commit(data: bytes) -> None:
    unsigned = drisl.decode(commit.parse_commit(data).unsigned)
    assert isinstance(unsigned, dict)
    assert len(unsigned) == 5


def fuzz_did_document(data: bytes) -> None:
    assert diddoc.parse(data, DID).did == DID


TARGETS: dict[str, tuple[Callable[[bytes], None], frozenset[str]]] = {
    "value": (fuzz_value, drisl.REASONS),
    "frame": (fuzz_frame, frames.REASONS),
    "peek": (fuzz_peek, frames.REASONS),
    "skim": (fuzz_skim, frozenset()),
    "car": (fuzz_car, car.REASONS),
    "node": (fuzz_node, frozenset()),
    "commit": (fuzz_commit, commit.REASONS | drisl.REASONS),
    "did-document": (fuzz_did_document, diddoc.REASONS),
}


def run(name: str, data: bytes) -> None:
    """One input for one target. Whatever it raises is a finding."""
    target, reasons = TARGETS[name]
    try:
        target(data)
    except ProtocolError as error:
        assert error.reason in reasons, error


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: run(name, data))
    atheris.Fuzz()
