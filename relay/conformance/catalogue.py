"""Every scenario there is: imports the modules that hold them. Called by `relay conform`."""

from __future__ import annotations

from relay.conformance.scenario import Scenario, entered
from relay.conformance.scenarios import accounts, commits, firehose, identities, messages, queries, signatures, trees

MODULES = (messages, commits, trees, signatures, identities, accounts, firehose, queries)


def all_scenarios() -> list[Scenario]:
    """In the order of their modules."""
    return entered()
