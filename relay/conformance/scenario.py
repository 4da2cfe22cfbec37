"""A scenario: one function that plays one thing a rule says, against a relay. `@scenario` makes one and enters it here.

A scenario returns when the relay does what it should. It raises `Broken` or `NotOffered` with what it saw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.conformance.rules import RULES
from relay.conformance.stage import Stage

Play = Callable[[Stage], None]

_known: list[Scenario] = []


@dataclass(frozen=True)
class Scenario:
    """`good`: what a relay must pass or answer, else what it must not. `alone`: no other is played meanwhile."""

    rule: str
    name: str
    good: bool
    own_host: bool
    alone: bool
    play: Play


def must(rule: str, *, own_host: bool = False, alone: bool = False) -> Callable[[Play], Play]:
    """Enter a scenario of what a relay has to do."""
    return _entered(rule, True, own_host, alone)


def must_not(rule: str, *, own_host: bool = False, alone: bool = False) -> Callable[[Play], Play]:
    """Enter a scenario of what a relay must not do, or must refuse."""
    return _entered(rule, False, own_host, alone)


def entered() -> list[Scenario]:
    """Those of the modules that have been imported, in order."""
    return list(_known)


def _entered(rule: str, good: bool, own_host: bool, alone: bool) -> Callable[[Play], Play]:
    assert rule in RULES

    def enter(play: Play) -> Play:
        words = play.__name__.replace("_", " ").strip()
        _known.append(Scenario(rule, words, good, own_host, alone, play))
        return play

    return enter
