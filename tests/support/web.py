"""The API over a real database, a real log and real sockets; upstream hosts are the only part that is not there."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from relay.admin.actions import Admin
from relay.admin.siblings import Siblings
from relay.atproto.frames import Kind, identity_frame, uint
from relay.collections.imports import Imports
from relay.config import Settings
from relay.dash.history import History
from relay.dash.past import Past
from relay.dash.routes import pages_of
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.healing.hosts import HostHealing
from relay.hosts.hosts import Hosts
from relay.hosts.registry import HostRegistry
from relay.identity.identity import Identity
from relay.ingest.accounts import Accounts
from relay.ingest.moderation import Moderation
from relay.ingest.places import Places
from relay.jsonstream.routes import json_stream
from relay.kit.errors import IdentityError
from relay.kit.generations import RecordCache
from relay.kit.values import Bind
from relay.net.http import GuardedHttp
from relay.store.database import Database
from relay.stream.cursors import CursorBook
from relay.stream.decisions import Decisions
from relay.stream.firehose import Firehose
from relay.stream.projector import Projector
from relay.stream.sequencer import Sequencer
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from relay.web.account_answers import AccountAnswers
from relay.web.account_network import AccountNetwork
from relay.web.account_report import AccountReports
from relay.web.application import create_app
from relay.web.callers import AdminAuth
from relay.web.consumers import Consumers
from relay.web.crawls import PublicCrawls
from relay.web.server import ApiServer
from relay.web.services import RelayServices
from tests.support import compiled  # noqa: F401
from tests.support.http import Answer, call
from tests.support.stream import append

PASSWORD = "test-password"
ADMIN = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


class Web:
    """A relay without hosts: events come in by `publish`, everything else through its port."""

    def __init__(self, db: Database, folder: Path, tail_bytes: int, **settings: Any) -> None:
        self.db = db
        self.settings = replace(Settings(admin_passwords=(PASSWORD,), allow_insecure_hosts=True), **settings)
        self.log = SegmentLog(folder / "persist", initial_seq=self.settings.initial_seq)
        suppressions = Suppressions()
        self.tail = Tail(self.log.last_seq, suppressions, tail_bytes)
        book = CursorBook(self.log)
        self.projector = Projector(db, book, suppressions, 0)
        self.sequencer = Sequencer(self.log, self.tail, self.projector, suppressions)
        self.firehose = Firehose(self.log, self.tail, suppressions)
        accounts = Accounts(self.projector.account, RecordCache(1000).accounts, next_uid=1)
        moderation = Moderation(db, accounts, self.sequencer, self.projector)
        http = GuardedHttp("relay-test", self.settings.allow_insecure_hosts)
        self.decisions = Decisions(self.log.directory, db)
        self.registry = HostRegistry(db, book, self.decisions)
        self.hosts = Hosts(
            db,
            self.registry,
            NoEvents(),
            lambda *_: False,
            Places(db, moderation).look_at,
            http,
            replace(self.settings, allow_insecure_hosts=True),
        )
        self.identities: dict[str, Identity] = {}
        self.texts: dict[str, list[str]] = {}
        self.imports = Imports(db, http, self.decisions, pause=0.01, retries=(0.01, 0.01))
        self.healing = HostHealing(db, http, self.registry, every=False, pause=0.01)
        self.problem: str | None = None
        password = self.settings.admin_passwords[0] if self.settings.admin_passwords else None
        self.siblings = Siblings(http, self.settings.sibling_relays, password)
        self.history = History(Past(folder / "persist"))
        admin = Admin(self.hosts, moderation, self.imports, self.siblings, self.healing)
        self.services = RelayServices(
            settings=self.settings,
            db=db,
            firehose=self.firehose,
            hosts=self.hosts,
            admin=admin,
            crawls=PublicCrawls(admin),
            consumers=Consumers(self.settings.max_consumers, self.settings.max_consumers_per_address),
            auth=AdminAuth(self.settings.admin_passwords),
            find_account=self.projector.account,
            account_answers=AccountAnswers(
                AccountReports(
                    AccountNetwork(http, self._ask_did, lambda name, _: self.texts.get(name, [])),
                    self.hosts,
                    self.projector.account,
                )
            ),
            problem=lambda: self.problem,
            live_rate=lambda: self.history.rate("logged"),
        )
        more = [json_stream(self.firehose, self.settings.json_zstd_dictionary)] if self.settings.json_stream else []
        self.app = create_app(self.services, [pages_of(self.history)], more)
        self.server = ApiServer(self.app, self.services, Bind("127.0.0.1", 0))

    def start(self) -> None:
        self.projector.start()
        self.sequencer.start()
        self.hosts.start()
        self.imports.start()
        self.healing.start()
        self.siblings.start()
        self.server.start()

    def stop(self) -> None:
        """End at once: a test whose consumers are to get the rest stops the server itself."""
        self.server.stop(0)
        self.siblings.stop()
        self.hosts.stop(1)
        self.imports.stop()
        self.healing.stop()
        self.sequencer.stop(1)
        self.projector.stop(1)
        self.log.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def stream(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/xrpc/com.atproto.sync.subscribeRepos"

    @property
    def json_stream(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/subscribe"

    def get(self, path: str, **headers: str) -> Answer:
        return call(self.url + path, headers=headers)

    def admin(self, path: str, body: Any = None, method: str | None = None) -> Answer:
        return call(self.url + path, body, method=method, headers=ADMIN)

    def publish(self, count: int = 1, size: int = 0, did: str = DID, uid: int = 1) -> None:
        """Log and send `count` identity events of `did`, each about `size` bytes long."""
        head, tail = identity_frame(did, "2026-01-01T00:00:00.000Z", "h" * size)
        first = self.log.next_seq
        records = [
            Record(seq, 1, uid, 0, 0, Kind.IDENTITY, 0, 0, head + uint(seq) + tail)
            for seq in range(first, first + count)
        ]
        append(self.log, records)
        self.tail.publish(records)

    def _ask_did(self, did: str) -> Identity:
        if did not in self.identities:
            raise IdentityError("did-not-found", did)
        return self.identities[did]


class NoEvents:
    """The intake of a relay that no host is connected to."""

    def put(self, *_: object) -> bool:
        raise AssertionError("no host is connected")

    def reject(self, *_: object) -> None:
        raise AssertionError("no host is connected")
