"""One relay of the comparison: its process, its database, and what both use.

This relay and indigo are treated alike: started once on an empty database so that they make their tables, stopped,
given the hosts as rows of the `host` table (which is indigo's in both), and started again. Another kind of relay has a
class of its own, as in `rsky`. Used by `rounds`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from tests.bench.network.measure import Fleet
from tests.bench.network.processes import Usage, tree_usage
from tests.support.postgres import Cluster
from tests.support.relay_process import RelayProcess

# In indigo's formula (50 + limit / 1000 events a second) far above what either relay can take.
ACCOUNT_LIMIT = 100_000_000

INSERT = """
    INSERT INTO host (created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq, account_count)
    VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, {0}, {0}, {0}, {0}, 'active', -1, 0)
"""


class Contestant:
    """A relay on its own empty database: a file, or a database of `cluster`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        settings: Mapping[str, str],
        folder: Path,
        plc: str,
        cluster: Cluster | None = None,
    ) -> None:
        self._cluster = cluster
        self.database = cluster.create() if cluster else f"sqlite://{folder}/relay.sqlite"
        self.process = RelayProcess(
            folder,
            {
                "DATABASE_URL": self.database,
                "RELAY_PLC_HOST": plc,
                "LOG_LEVEL": "warn",
                "RELAY_MAX_CONSUMERS": "2000",
                "RELAY_MAX_CONSUMERS_PER_ADDRESS": "2000",
                **settings,
            },
            command,
        )

    @property
    def url(self) -> str:
        return self.process.url

    def start_with(self, fleet: Fleet) -> None:
        """Start with the fleet's hosts known, and wait until all are connected."""
        self.process.settings |= fleet.trust
        self.process.start()
        self.process.stop()
        self.prepare(fleet)
        self.restart(fleet)

    def restart(self, fleet: Fleet) -> None:
        """Start, and wait until all hosts are connected."""
        self.process.start()
        fleet.wait_subscribed()

    def stop(self) -> None:
        self.process.stop()

    def close(self) -> None:
        self.process.close()

    def usage(self) -> Usage:
        """The relay's processes alone."""
        assert self.process.child
        return tree_usage(self.process.child.process.pid)

    def database_usage(self) -> Usage:
        """The database server's processes; all zero for a file."""
        return tree_usage(self._cluster.pid if self._cluster else 0)

    def prepare(self, fleet: Fleet) -> None:
        """Write what the relay begins with into its tables."""
        addresses = map(urlsplit, fleet.hosts)
        rows = [(address.netloc, address.scheme == "http", ACCOUNT_LIMIT, False) for address in addresses]
        if self._cluster:
            with closing(psycopg2.connect(self.database)) as server, server, server.cursor() as cursor:
                cursor.executemany(INSERT.format("%s"), rows)
        else:
            with closing(sqlite3.connect(self.database.removeprefix("sqlite://"))) as connection, connection:
                connection.executemany(INSERT.format("?"), rows)
