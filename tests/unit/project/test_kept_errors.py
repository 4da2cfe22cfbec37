"""An exception that is kept keeps its traceback, and that the frames with all that is in them: messages of megabytes.

Nothing but the garbage collector ends such a circle, and that comes when enough objects were made, however large they
are. So whoever keeps an exception keeps a copy, or one without its traceback; and no frame keeps the one it raises.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.atproto import frames
from relay.atproto.errors import ProtocolError
from tests.support.living import living, without_collections
from tests.support.repo import frame

RELAY = Path(__file__).parents[3] / "relay"
# A program of its own, which ends soon.
ELSEWHERE = "conformance"
# Handed over as a value, raised by the caller, and deleted there.
HANDED_OVER = {"kit/background.py"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(RELAY.rglob("*.py")):
        if ELSEWHERE not in path.parts:
            yield str(path.relative_to(RELAY)), ast.parse(path.read_text(encoding="utf-8"))


def names_in(value: ast.expr) -> Iterator[str]:
    """The names of which a value is made as they are."""
    if isinstance(value, ast.Name):
        yield value.id
    elif isinstance(value, ast.IfExp):
        yield from names_in(value.body)
        yield from names_in(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for part in value.values:
            yield from names_in(part)
    elif isinstance(value, ast.Tuple | ast.List):
        for part in value.elts:
            yield from names_in(part)


def kept(tree: ast.Module) -> Iterator[int]:
    """The lines where a caught exception gets another name."""
    for handler in ast.walk(tree):
        if isinstance(handler, ast.ExceptHandler) and handler.name:
            for node in ast.walk(handler):
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.Return):
                    value = node.value
                    if value is not None and handler.name in names_in(value):
                        yield node.lineno


def raised_by_name(node: ast.AST, gone: frozenset[str] = frozenset()) -> Iterator[int]:
    """The lines where what is raised has a name that stays."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
        name = node.exc.id.lstrip("_")
        # A class that is raised without arguments is no exception yet.
        is_class = name[0].isupper() and not name.isupper()
        if not is_class and node.exc.id not in gone:
            yield node.lineno
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Attribute) and node.exc.attr.lstrip("_")[0].islower():
        yield node.lineno
    if isinstance(node, ast.ExceptHandler) and node.name:
        gone |= {node.name}
    if isinstance(node, ast.Try):
        deleted = (target for end in node.finalbody if isinstance(end, ast.Delete) for target in end.targets)
        gone |= {target.id for target in deleted if isinstance(target, ast.Name)}
    for child in ast.iter_child_nodes(node):
        yield from raised_by_name(child, gone)


def test_no_caught_exception_is_kept_as_it_is() -> None:
    assert [f"{name}:{line}" for name, tree in modules() if name not in HANDED_OVER for line in kept(tree)] == []


def test_no_frame_keeps_what_it_raises() -> None:
    assert [f"{name}:{line}" for name, tree in modules() for line in raised_by_name(tree)] == []


@pytest.mark.parametrize("bad", [b"", b"junk", b"\xa2"])
def test_a_message_that_cannot_be_read_is_let_go(bad: bytes) -> None:
    whole = frame("#commit", {"seq": 5, "repo": "did:plc:" + "a" * 24, "x": b"y" * 10_000})
    with without_collections():
        for _ in range(5):
            with pytest.raises(ProtocolError) as raised:
                frames.decode(whole + bad)
            del raised
        assert not living(ProtocolError)
