"""The reference network and what its account holders do: real PDS calls, each noted in a ledger.

The ledger is what a consumer behind the relay must see: per account, in order, every commit with every record
operation in it, and every change of the account's status. Used by the end-to-end tests; runs `network.mjs`.
"""

from __future__ import annotations

import base64
import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.child import Child
from tests.support.http import call, free_ports

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PDS_ADMIN = "Basic " + base64.b64encode(b"admin:pds-admin").decode()
BEGAN = "2026-01-01T00:00:00.000Z"
POST, LIKE, FOLLOW, PROFILE = (
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.graph.follow",
    "app.bsky.actor.profile",
)


def node() -> Path:
    """The Node that the reference network was installed with."""
    return next(MODULES.glob("node-linux-*/bin/node"))


class Op(NamedTuple):
    """One record operation as a consumer sees it. `action` is create, update or delete."""

    action: str
    path: str
    cid: str | None


class Ledger:
    """Per account, in order: its commits as (rev, operations), and the changes of its status (None is active). And how
    many `#identity` events there must be at least: a PDS may send more."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, frozenset[Op]]]] = defaultdict(list)
        self.statuses: dict[str, list[str | None]] = defaultdict(list)
        self.identities: Counter[str] = Counter()

    def note_status(self, did: str, status: str | None) -> None:
        if self.statuses[did][-1:] != [status]:
            self.statuses[did].append(status)


class Account:
    """An account on a reference PDS, its holder's session, and the ledger that each action is noted in."""

    numbers = itertools.count()

    def __init__(self, pds: str, ledger: Ledger) -> None:
        self.pds = pds
        self.ledger = ledger
        self.handle = f"user{next(self.numbers)}.test"
        self.did = ""
        self.token = ""

    def call(
        self, method: str, body: Any = None, *, query: str = "", token: str | None = None, verb: str | None = None
    ) -> Any:
        """A successful XRPC call to this account's PDS; JSON, or bytes when the answer is no JSON."""
        header = token or (f"Bearer {self.token}" if self.token else None)
        answer = call(
            f"{self.pds}/xrpc/com.atproto.{method}?{query}",
            body,
            method=verb,
            headers={"Authorization": header} if header else {},
            timeout=120,
        )
        assert answer.status == 200, (method, answer.status, answer.body)
        return answer.json if answer.body[:1] == b"{" else answer.body

    def create(self, **more: Any) -> None:
        """Sign up. `more` and a token make it the arrival of an account that exists elsewhere."""
        token = more.pop("service_token", None)
        made = self.call(
            "server.createAccount",
            {"handle": self.handle, "email": f"{self.handle}@example.com", "password": "hunter2", **more},
            token=f"Bearer {token}" if token else None,
        )
        self.did, self.token = made["did"], made["accessJwt"]
        if not token:
            self.ledger.note_status(self.did, None)
            self.ledger.identities[self.did] += 1

    def add(self, collection: str, **record: Any) -> str:
        """Create a record; its record key."""
        made = self.call("repo.createRecord", self._record(collection, record))
        return self._note(made["commit"]["rev"], [("create", made["uri"], made["cid"])])[0]

    def cid_of(self, collection: str, rkey: str) -> str:
        """The CID of a record of this account, as its PDS says."""
        query = f"repo={self.did}&collection={collection}&rkey={rkey}"
        return str(self.call("repo.getRecord", query=query)["cid"])

    def put(self, collection: str, rkey: str, action: str, **record: Any) -> None:
        """Write a record under a given key; `action` says whether that creates or updates it."""
        made = self.call("repo.putRecord", {**self._record(collection, record), "rkey": rkey})
        self._note(made["commit"]["rev"], [(action, made["uri"], made["cid"])])

    def remove(self, collection: str, rkey: str) -> None:
        made = self.call("repo.deleteRecord", {"repo": self.did, "collection": collection, "rkey": rkey})
        self._note(made["commit"]["rev"], [("delete", f"at://{self.did}/{collection}/{rkey}", None)])

    def add_many(self, count: int) -> list[str]:
        """Create posts in one commit; their record keys."""
        writes = [
            {
                "$type": "com.atproto.repo.applyWrites#create",
                "collection": POST,
                "value": self._record(POST, {"text": f"post {number} of a batch"})["record"],
            }
            for number in range(count)
        ]
        made = self.call("repo.applyWrites", {"repo": self.did, "writes": writes})
        return self._note(made["commit"]["rev"], [("create", one["uri"], one["cid"]) for one in made["results"]])

    def apply(self, *writes: tuple[str, str, str | None]) -> None:
        """Write posts in one commit: (action, record key, text). As a consumer sees it, so does the ledger."""
        made = self.call(
            "repo.applyWrites",
            {
                "repo": self.did,
                "writes": [
                    {
                        "$type": f"com.atproto.repo.applyWrites#{action}",
                        "collection": POST,
                        "rkey": rkey,
                        **({} if text is None else {"value": {"$type": POST, "text": text, "createdAt": BEGAN}}),
                    }
                    for action, rkey, text in writes
                ],
            },
        )
        self._note(
            made["commit"]["rev"],
            [
                (action, f"at://{self.did}/{POST}/{rkey}", result.get("cid"))
                for (action, rkey, _), result in zip(writes, made["results"], strict=True)
            ],
        )

    def rename(self, handle: str) -> None:
        self.call("identity.updateHandle", {"handle": handle})
        self.handle = handle
        self.ledger.identities[self.did] += 1

    def deactivate(self) -> None:
        self.call("server.deactivateAccount", {})
        self.ledger.note_status(self.did, "deactivated")

    def activate(self) -> None:
        self.call("server.activateAccount", verb="POST")
        self.ledger.note_status(self.did, None)

    def delete(self) -> None:
        self.call("admin.deleteAccount", {"did": self.did}, token=PDS_ADMIN)
        self.ledger.note_status(self.did, "deleted")

    def _record(self, collection: str, record: dict[str, Any]) -> dict[str, Any]:
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        full = {"$type": collection, "createdAt": created, **record}
        return {"repo": self.did, "collection": collection, "record": full}

    def _note(self, rev: str, writes: list[tuple[str, str, str | None]]) -> list[str]:
        ops = [Op(action, uri.removeprefix(f"at://{self.did}/"), cid) for action, uri, cid in writes]
        self.ledger.commits[self.did].append((rev, frozenset(ops)))
        return [op.path.split("/")[1] for op in ops]


class ReferenceNetwork:
    """A running PLC directory, and the PDSs of one test after the other; `plc` and `pds` are their addresses."""

    def __init__(self, folder: Path) -> None:
        (plc,) = free_ports(1)
        command: list[str | Path] = [node(), HERE / "network.mjs", f"--plc={plc}", f"--dir={folder}"]
        self.child = Child(command, env={"LOG_ENABLED": "false"}, stderr=folder / "network.log")
        self.child.wait_for('"ready":true', 60)
        self.plc = f"http://localhost:{plc}"
        self.pds: list[str] = []

    def start_pds(self, count: int) -> None:
        """Start new PDSs without accounts."""
        for port in free_ports(count):
            self.command("startPds", port=str(port))
            self.pds.append(f"http://localhost:{port}")

    def stop_pds(self) -> None:
        """Stop all PDSs."""
        while self.pds:
            self.command("stopPds", pds=self.pds.pop())

    def command(self, name: str, **details: str) -> None:
        """Have `network.mjs` do what XRPC cannot, and wait for it."""
        answered = len(self.child.messages)
        self.child.send({"command": name, **details})
        self.child.wait_until(lambda: len(self.child.messages) > answered, 60)
        assert "done" in self.child.messages[-1], self.child.lines[-1]

    def migrate(self, account: Account, pds: str) -> Account:
        """Move an account with its repository to another PDS, as the account migration guide has it, and tell the
        old one last. Returns the account at its new home; the old session still works."""
        target = Account(pds, account.ledger)
        target.handle = account.handle
        service = target.call("server.describeServer")["did"]
        query = f"aud={service}&lxm=com.atproto.server.createAccount"
        token = account.call("server.getServiceAuth", query=query)["token"]
        target.create(did=account.did, service_token=token)
        target.call("repo.importRepo", account.call("sync.getRepo", query=f"did={account.did}"))
        advised = target.call("identity.getRecommendedDidCredentials")
        self.command("moveIdentity", did=account.did, pds=pds, signingKey=advised["verificationMethods"]["atproto"])
        target.activate()
        return target

    def close(self) -> None:
        self.child.close()
