"""Builds the relay's parts, wires them, starts and stops them in order.

Run by `relay serve` and `wsgi.py`. The only module that knows all rooms; it holds no rule of its own but the order:
what an event flows into starts before it and stops after it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent.event import Event as Signal
from gevent.util import wrap_errors

from relay.admin.actions import Admin
from relay.admin.siblings import Siblings, announcement
from relay.collections.check import CollectionCheck
from relay.collections.imports import Imports
from relay.config import Settings, gone_variables, unknown_variables
from relay.dash.history import History
from relay.dash.past import Past
from relay.dash.routes import pages_of
from relay.edge.edge import Edge
from relay.edge.serving import further_streams
from relay.eventlog import spare
from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep
from relay.healing.healing import Healing
from relay.hosts.hosts import Hosts
from relay.hosts.limit_alerts import Alert, LimitAlerts, Webhook
from relay.hosts.registry import HostRegistry
from relay.identity.resolver import Resolver
from relay.ingest.ingest import Ingest
from relay.ingest.worker_pool import pool_for
from relay.kit import allocator, log_lines
from relay.kit.cores import usable_cores
from relay.kit.env_file import environment_with
from relay.kit.errors import RelayError
from relay.kit.generations import RecordCache
from relay.kit.memory import MemoryDebug
from relay.kit.minute_line import MinuteLine
from relay.kit.systemd import Notifier
from relay.kit.vitals import Vitals
from relay.net.http import SERVER, GuardedHttp
from relay.store import installation
from relay.store.database import Database
from relay.store.open import open_database
from relay.stream import takeover
from relay.stream.stream import Stream
from relay.web.account_answers import AccountAnswers
from relay.web.account_network import AccountNetwork
from relay.web.account_report import AccountReports
from relay.web.application import create_app
from relay.web.callers import AdminAuth, passwords_or_random
from relay.web.consumers import Consumers
from relay.web.crawls import PublicCrawls
from relay.web.health import HealthWatch
from relay.web.metrics_server import MetricsServer
from relay.web.server import ApiServer
from relay.web.services import RelayServices

if TYPE_CHECKING:
    from relay.cluster.term import Term

# SIGTERM has to be through within 30 s; each step gets what the ones before it left.
DRAIN_SECONDS = 25.0
# How long a stop may take. What still waits for a disk or the database then is left behind.
END_SECONDS = 28.0
# As in sysexits.h: another relay is in the way, which may end; and what an operator has to decide.
EXIT_FAILURE, EXIT_AGAIN, EXIT_CONFIG = 1, 75, 78
EXIT_CODES = {
    "log-locked": EXIT_AGAIN,
    "store-locked": EXIT_AGAIN,
    "store-log": EXIT_CONFIG,
    "store-pooled": EXIT_CONFIG,
    "log-edge": EXIT_CONFIG,
    "log-relay": EXIT_CONFIG,
}
# Young objects are looked at soon, while they are few: thousands of accounts that begin to wait at once are hundreds of
# thousands of objects, which the hub must not have to walk in one go. A full collection comes after 100 million.
GC_THRESHOLDS = (20_000, 4, 1250)

T = TypeVar("T")

log = logging.getLogger(__name__)


class Relay:
    """All parts of one relay, wired. Building it opens the database and the log and brings SQL up to the log."""

    def __init__(self, settings: Settings, term: Term | None = None) -> None:
        """`term` makes it the active node of a cluster. Raises StoreError, LogError."""
        self._term = term
        self._vitals = Vitals("relay")
        self._waiting: gevent.Greenlet[[], None] | None = None
        self._memory_debug = MemoryDebug() if settings.debug_memory else None
        http = GuardedHttp(SERVER, settings.allow_insecure_hosts)
        spare.give_back(settings.persist_dir)
        self._db = open_database(
            settings.database_url, max_connections=settings.max_db_connections, hold=True, seize=term is not None
        )
        self._db.write(installation.claim, "relay")
        initial_seq = max(settings.initial_seq, takeover.next_seq(self._db, settings.persist_dir))
        segment_log = SegmentLog(settings.persist_dir, initial_seq=initial_seq)
        if term is not None:
            term.take(segment_log, self._db)
        self._stream = Stream(
            segment_log, self._db, Keep(settings.replay_window, settings.persist_max_bytes, settings.persist_min_free)
        )
        if term is not None:
            term.join(self._stream)
        memory = RecordCache(settings.ident_cache_size)
        self._resolver = Resolver(self._db, http, plc_hosts=settings.plc_hosts, memory=memory)
        registry = HostRegistry(self._db, self._stream.cursors, self._stream.decisions)
        self._ingest = ingest = Ingest(
            self._db,
            self._stream,
            self._resolver,
            registry,
            http,
            memory=memory,
            lenient=settings.lenient_sync_validation,
            pool=pool_for(settings.validator_processes, usable_cores(), lenient=settings.lenient_sync_validation),
        )
        self._collection_check = CollectionCheck(self._db, http, registry, self._stream.projector)
        self._hosts = Hosts(
            self._db,
            registry,
            ingest.lanes,
            ingest.renumbering.starts_again,
            ingest.places.look_at,
            http,
            settings,
        )
        self._imports = Imports(self._db, http, self._stream.decisions)
        self._stream.decisions.watch(registry.store_again)
        self._stream.decisions.watch(self._imports.go_on)
        self._healing = None
        if settings.heal != "off":
            self._healing = Healing(self._db, http, ingest, registry, every=settings.heal == "all")
        # A random password opens no sibling.
        password = settings.admin_passwords[0] if settings.admin_passwords else None
        self._siblings = Siblings(http, settings.sibling_relays, password)
        self._history = History(Past(settings.persist_dir))
        self._limit_alerts = _limit_alerts(settings, self._db, registry, self._siblings, http)
        admin = Admin(
            self._hosts,
            ingest.moderation,
            self._imports,
            self._siblings,
            self._healing.hosts if self._healing is not None else None,
        )
        services = RelayServices(
            settings=settings,
            db=self._db,
            firehose=self._stream.firehose,
            hosts=self._hosts,
            admin=admin,
            crawls=PublicCrawls(admin),
            consumers=Consumers(settings.max_consumers, settings.max_consumers_per_address),
            auth=AdminAuth(passwords_or_random(settings.admin_passwords)),
            find_account=self._stream.projector.account,
            account_answers=AccountAnswers(
                AccountReports(AccountNetwork(http, self._resolver.ask), self._hosts, self._stream.projector.account)
            ),
            problem=lambda: (term and term.problem) or self._stream.problem or ingest.problem,
            warning=lambda: self._stream.warning,
            memory=self._memory_debug,
            live_rate=lambda: self._history.rate("logged"),
            role="relay" if term is None else "active",
            node="" if term is None else term.node,
        )
        more = further_streams(settings, self._stream.firehose)
        if term is not None:
            more.append(term.routes())
        self._api = ApiServer(create_app(services, [pages_of(self._history)], more), services, settings.api_bind)
        self._health = HealthWatch(services)
        self._metrics = MetricsServer(settings.metrics_bind, self._health.problem)
        self._minute_line = MinuteLine("relay", self._health.problem)

    def start(self) -> None:
        """Start everything, the API first: it answers whatever the hosts do. Raises OSError when a port is taken."""
        self._vitals.start()
        self._metrics.start()
        self._stream.start()
        if self._term is not None:
            self._term.start()
        self._resolver.start()
        self._hosts.load()
        self._imports.start()
        if self._healing is not None:
            self._healing.start()
        self._siblings.start()
        self._history.start()
        self._health.start()
        self._api.start()
        if self._stream.projector.behind:
            self._waiting = gevent.spawn(self._take_events_when_caught_up)
        else:
            self._take_events()
        self._minute_line.start()
        log.info("serving on port %d, metrics on port %d", self._api.port, self._metrics.port)

    def _take_events(self) -> None:
        """Begin with all that changes accounts. Raises StoreError."""
        self._ingest.start()
        self._collection_check.start()
        self._hosts.start()
        if self._limit_alerts is not None:
            self._limit_alerts.start()

    def _take_events_when_caught_up(self) -> None:
        """An old database is brought up to the log first, which may take hours: meanwhile the relay serves."""
        self._stream.projector.wait_until_caught_up()
        log.info("the database is up to the log; connecting to hosts")
        try:
            self._take_events()
        except Exception:
            # Only a start anew helps, which systemd makes.
            log.exception("the relay cannot take events: it ends, to be started again")
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """Drain: no more events in, those that are in into the log, all that is logged to the consumers."""
        deadline = time.monotonic() + DRAIN_SECONDS

        def left() -> float:
            return max(deadline - time.monotonic(), 0.5)

        self._minute_line.stop()
        if self._waiting is not None:
            self._waiting.kill()
        if self._limit_alerts is not None:
            self._limit_alerts.stop()
        self._hosts.stop(min(left(), 5.0))
        self._collection_check.stop()
        self._imports.stop()
        if self._healing is not None:
            self._healing.stop()
        self._ingest.stop(left() - 12.0)
        self._stream.drain(left() - 10.0)
        if self._term is not None:
            self._term.stop()
        self._api.stop(min(left(), 5.0))
        self._stream.stop(left())
        self._siblings.stop()
        self._history.stop()
        self._resolver.stop()
        self._health.stop()
        self._db.close()
        self._metrics.stop()
        self._vitals.stop()
        if self._memory_debug is not None:
            log.info("memory at the end: %s", json.dumps(self._memory_debug.report()))
            self._memory_debug.stop()


def _limit_alerts(
    settings: Settings, db: Database, registry: HostRegistry, siblings: Siblings, http: GuardedHttp
) -> LimitAlerts | None:
    """The alerts of account limits, when the operator said where to send them."""
    if not settings.alert_webhook_url:
        return None

    def announce(alert: Alert) -> None:
        siblings.forward(siblings.own(announcement(alert)))

    return LimitAlerts(db, registry, Webhook(http, settings.alert_webhook_url).send, announce, settings)


def _calm_collector() -> None:
    """Leave what start-up made out of every later garbage collection, and collect less often.

    The event path makes hardly any cycles; walking all that is cached to find none is time the hub does not have.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _built(build: Callable[[], T], stopped: Signal) -> T | None:
    """What `build` makes, or None as soon as `stopped` is set: the database may take an hour to be brought up to date.

    Until it is through no event comes in, and what is under way counts as a crash does.
    """
    building: gevent.Greenlet[[], T | Exception] = gevent.spawn(wrap_errors((Exception,), build))
    either: list[Any] = [building, stopped]
    # Ended by one of them.
    gevent.wait(either, count=1)
    if not building.ready():
        building.kill(timeout=DRAIN_SECONDS)
        return None
    made: T | Exception = building.get(timeout=0)
    if isinstance(made, Exception):
        try:
            raise made
        finally:
            del made
    return made


def _end_now() -> None:
    """End the process, which the log and SQL take for a crash."""
    log.error("a disk or the database has not answered for %.0f s: the relay ends without the rest", END_SECONDS)
    logging.shutdown()
    os._exit(EXIT_FAILURE)


def main(env_file: Path | None) -> int:
    """Run the relay until SIGTERM or SIGINT; the process's exit code. Raises ConfigError before anything is started."""
    environment = environment_with(env_file)
    settings = Settings.from_environment(environment)
    allocator.configure()
    log_lines.set_up(settings.log_level, settings.log_format)
    log_lines.take_uncaught()
    for name in unknown_variables(environment):
        log.warning("%s is set, but is not a setting of this relay", name)
    for name, advice in gone_variables(environment):
        log.warning("%s is no longer a setting: %s", name, advice)
    if settings.cluster:
        from relay.cluster import node

        node.check(settings)
    notifier = Notifier(os.environ)
    notifier.starting()
    stopped = Signal()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopped.set)
    try:
        term = None
        if settings.cluster:
            term = node.stand_by(settings, stopped, notifier.ready)
            if term is None:
                return 0
        relay = _built(lambda: Edge(settings) if settings.mode == "edge" else Relay(settings, term), stopped)
        if relay is None:
            log.info("stopped before the start was through")
            return 0
        relay.start()
    except (RelayError, OSError) as error:
        log.error("the relay cannot start: %s", error)
        return EXIT_CODES.get(error.reason, EXIT_FAILURE) if isinstance(error, RelayError) else EXIT_FAILURE
    _calm_collector()
    changed = "".join(f" {name}={value}" for name, value in settings.changed().items())
    log.info("started as process %d; settings that differ from their defaults:%s", os.getpid(), changed or " none")
    notifier.ready()
    stopped.wait()
    log.info("stopping")
    notifier.stopping()
    late = gevent.spawn_later(END_SECONDS, _end_now)
    relay.stop()
    late.kill()
    notifier.close()
    log.info("stopped")
    return EXIT_AGAIN if term is not None and term.handed_over else 0
