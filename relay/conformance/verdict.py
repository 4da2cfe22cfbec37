"""The possible outcomes of a scenario."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What a relay does about a rule."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_OFFERED = "not offered"


class Broken(Exception):
    """The relay does not keep the rule; the text says what it did."""


class RelayEnded(Exception):
    """The relay, or its firehose, is gone: nothing can be said about the rule."""


class NotOffered(Exception):
    """The relay does not have what the rule is about, or it cannot be told from outside; the text says why."""
