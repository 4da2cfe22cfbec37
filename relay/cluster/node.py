"""A node of a cluster from its start until it is the active one.

Called by `app` before it builds the relay. A node whose term ends otherwise than by an order ends as a process, and the
process manager starts it again: then it stands by.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from importlib.util import find_spec

import gevent
from gevent.event import Event as Signal

from relay.cluster.link import Link, Retention
from relay.cluster.protocol import MAX_NODE
from relay.cluster.replication import Replication
from relay.cluster.standby import Standby
from relay.cluster.term import Term
from relay.config import Settings
from relay.kit.errors import ConfigError
from relay.kit.values import POSTGRES

# As in sysexits.h: it may be tried again.
EXIT_ENDED = 75
# Fewer servers have no quorum to lose.
REPLICAS = 3
LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raises ConfigError for what a cluster cannot work with."""
    if settings.mode != "relay":
        raise ConfigError("RELAY_CLUSTER: an edge has no part in a cluster")
    if not settings.database_url.startswith(POSTGRES):
        raise ConfigError("RELAY_CLUSTER: the nodes share a PostgreSQL database, and DATABASE_URL is another")
    if not all(url.startswith(("nats://", "tls://")) for url in settings.cluster):
        raise ConfigError("RELAY_CLUSTER: the address of a NATS server begins with nats:// or tls://")
    if find_spec("nats") is None:
        raise ConfigError("RELAY_CLUSTER: nats-py is missing: install atproto-relay[cluster]")
    if len(settings.cluster_node.encode()) > MAX_NODE:
        raise ConfigError(f"RELAY_CLUSTER_NODE: a name has at most {MAX_NODE} bytes")


def stand_by(settings: Settings, stopped: Signal, ready: Callable[[], None]) -> Term | None:
    """Serve as a standby until this node's term begins, which it returns; None once `stopped` is set.

    `ready` is called when it serves. Raises StoreError, LogError, OSError.
    """
    replicas = REPLICAS if len(settings.cluster) >= REPLICAS else 1
    link = Link(settings.cluster, Retention(replicas, settings.replay_window, settings.persist_max_bytes))
    link.start()
    node = settings.cluster_node or socket.gethostname()[:MAX_NODE]
    standby = Standby(settings, link, node)
    standby.start()
    ready()
    while not (stopped.is_set() or standby.claimed.is_set()):
        gevent.wait([stopped, standby.claimed], timeout=LOOK_SECONDS, count=1)
    if stopped.is_set() and not standby.claimed.is_set():
        standby.stop()
        link.stop()
        return None
    place = standby.place
    replication = Replication(link, node, place.term, place.tail, end_now)
    replication.start()
    restored = standby.restore(replication)
    standby.stop()
    return Term(link, replication, end_now, in_doubt=restored)


def end_now() -> None:
    """End the process without another word to anyone."""
    log.critical("the term of this node has ended: it starts again and stands by")
    logging.shutdown()
    os._exit(EXIT_ENDED)
