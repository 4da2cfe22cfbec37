"""The two real consumers as watched processes, and the comparison of what they saw with a ledger."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

from tests.e2e.network import HERE, Ledger, Op, node
from tests.support.child import Child
from tests.support.relay_process import ROOT

Commit = tuple[str, frozenset[Op]]
ACTIONS = {"create", "update", "delete"}


def differences(expected: dict[str, list[Commit]], seen: dict[str, list[Commit]]) -> list[str]:
    """Per account, what is missing, what should not be there, and whether the rest is in another order."""
    found = []
    for did in expected.keys() | seen.keys():
        wanted, got = expected.get(did, []), seen.get(did, [])
        if wanted != got:
            missing = [commit for commit in wanted if commit not in got]
            surplus = [commit for commit in got if commit not in wanted]
            found.append(f"{did}: {len(got)} of {len(wanted)}; missing {missing[:3]}; surplus {surplus[:3]}")
    return found


class Consumer:
    """A running consumer; it goes on through every restart of the relay."""

    def __init__(self, child: Child, name: str, *, one_at_a_time: bool) -> None:
        self.child = child
        self.name = name
        self.one_at_a_time = one_at_a_time

    @classmethod
    def reference(cls, relay: str, plc: str, cursor: int = 0) -> Consumer:
        """`@atproto/sync`, which verifies every commit. `relay` is its http address."""
        address = relay.replace("http", "ws")
        command: list[str | Path] = [
            node(),
            HERE / "consumer.mjs",
            f"--relay={address}",
            f"--plc={plc}",
            f"--cursor={cursor}",
        ]
        return cls(Child(command), "@atproto/sync", one_at_a_time=False)

    @classmethod
    def jetstream(cls, relay: str) -> Consumer:
        """`@skyware/jetstream`, on the JSON stream."""
        endpoint = relay.replace("http", "ws") + "/subscribe"
        command: list[str | Path] = [node(), HERE / "jetstream_consumer.mjs", f"--endpoint={endpoint}"]
        return cls(Child(command), "@skyware/jetstream", one_at_a_time=True)

    @classmethod
    def python(cls, relay: str, cursor: int = 0) -> Consumer:
        """PyPI's `atproto`."""
        address = relay.replace("http", "ws") + "/xrpc"
        command: list[str | Path] = [sys.executable, HERE / "python_consumer.py", address, str(cursor)]
        return cls(Child(command, cwd=ROOT), "atproto", one_at_a_time=True)

    def errors(self) -> list[str]:
        """What the consumer complained about, or printed that is no message."""
        return [str(message) for message in self.child.messages if "error" in message] + [
            line for line in self.child.lines if not line.startswith("{")
        ]

    def commits(self) -> dict[str, list[Commit]]:
        """Per account, in the order of arrival: the commits that have operations."""
        seen: dict[str, list[tuple[str, set[Op]]]] = defaultdict(list)
        for message in self.child.messages:
            if message.get("event") in ACTIONS:
                commits = seen[message["did"]]
                if not commits or commits[-1][0] != message["rev"]:
                    commits.append((message["rev"], set()))
                op = Op(message["event"], message["path"], message.get("cid"))
                assert op not in commits[-1][1], f"{self.name} saw {op} of {message['rev']} twice"
                commits[-1][1].add(op)
        return {did: [(rev, frozenset(ops)) for rev, ops in commits] for did, commits in seen.items()}

    def statuses(self) -> dict[str, list[str | None]]:
        """Per account, in the order of arrival: its status, None when active. Repetitions of one status count once."""
        seen: dict[str, list[str | None]] = defaultdict(list)
        for message in self.child.messages:
            if message.get("event") == "account":
                status = None if message["active"] else message.get("status")
                if seen[message["did"]][-1:] != [status]:
                    seen[message["did"]].append(status)
        return dict(seen)

    def identities(self) -> Counter[str]:
        """How many `#identity` events of each account came."""
        return Counter(message["did"] for message in self.child.messages if message.get("event") == "identity")

    def check_seqs(self) -> None:
        """No `seq` came twice or for two events; and they rose, where the consumer works one event at a time."""
        owners: dict[int, tuple[str, str | None]] = {}
        for message in self.child.messages:
            if "seq" not in message:
                continue
            seq, owner = message["seq"], (message["did"], message.get("rev"))
            if message["event"] in ACTIONS:
                assert owners.setdefault(seq, owner) == owner, f"{self.name}: seq {seq} is two events"
            else:
                assert seq not in owners, f"{self.name} saw seq {seq} twice"
                owners[seq] = owner
        if self.one_at_a_time:
            assert list(owners) == sorted(owners)

    def check(self, ledger: Ledger, *, hidden: frozenset[str] = frozenset(), timeout: float = 60) -> None:
        """Wait until everything in the ledger has come, then compare, so that a failure shows the difference.

        `hidden` are accounts that were deleted before this consumer came: of them it must see the statuses alone.
        """
        commits = {did: writes for did, writes in ledger.commits.items() if did not in hidden}
        identities = Counter({did: count for did, count in ledger.identities.items() if did not in hidden})
        with suppress(AssertionError):
            self.child.wait_until(
                lambda: (
                    (self.commits(), self.statuses()) == (commits, ledger.statuses) and identities <= self.identities()
                ),
                timeout,
            )
        assert not (errors := self.errors()), f"{self.name}: {errors[:5]}"
        assert not (wrong := differences(commits, self.commits())), f"{self.name}: " + "\n".join(wrong)
        assert self.statuses() == ledger.statuses
        assert identities <= self.identities()
        assert not hidden & self.identities().keys()
        self.check_seqs()

    def close(self) -> None:
        self.child.close()
