"""What operators decided and no event says, as rows: banned domains, hosts with their limits, settings, imports.

Put back by `stream.decisions` into an older database. `relay_setting` has the number of the last decision that the rows
have. Must not know where decisions are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, NamedTuple

from relay.store import collection_imports, collections, hosts, installation
from relay.store.database import Transaction
from relay.store.hosts import HostRow

Kind = Literal["ban", "host", "import", "setting"]

LAST_KEY = "decisions"
CRAWL_ENABLED = "crawl-enabled"
NEW_HOSTS_PER_DAY = "new-hosts-per-day"

# The parts of a host's row that nobody decides: where its events stand, and how it did lately.
_NOT_DECIDED = (
    "hostname",
    "last_seq",
    "account_count",
    "cursor_since",
    "failures",
    "last_attempt_at",
    "last_connected_at",
    "last_event_at",
)
_TIMES = ("created_at", "alert_sent_at")


class Decision(NamedTuple):
    """The last that was decided of something. Numbers rise with time.

    `ban`: of the domain `key`, whether it is banned. `host`: of the host named `key`, what `host_value` says.
    `setting`: of the setting `key`, its text. `import`: of the source `key`, what `import_value` says.
    """

    number: int
    kind: str
    key: str
    value: Any


def host_value(row: HostRow) -> dict[str, Any]:
    """What was decided of a host, the relay's taking it in as well."""
    value = {name: part for name, part in asdict(row).items() if name not in _NOT_DECIDED}
    return value | {name: value[name] and value[name].isoformat() for name in _TIMES}


def import_value(nsids: Sequence[str], at: float, *, ended: bool) -> dict[str, Any]:
    """That an import was begun `at` a time, of `nsids` or of all, or was ended then before it was through."""
    return {"nsids": list(nsids), "at": at, "ended": ended}


def last(tx: Transaction) -> int:
    """The number of the last decision that is in the rows."""
    return int(installation.get(tx, LAST_KEY) or 0)


def put_last(tx: Transaction, number: int) -> None:
    """All decisions up to `number` are in the rows."""
    installation.put(tx, LAST_KEY, str(number))


def current(tx: Transaction) -> dict[tuple[Kind, str], Any]:
    """(kind, key) -> value, as the rows have it; of imports nothing."""
    found: dict[tuple[Kind, str], Any] = {("ban", domain.lower()): True for domain in hosts.all_bans(tx)}
    for row in hosts.all_rows(tx):
        found["host", row.hostname] = host_value(row)
    for key in (CRAWL_ENABLED, NEW_HOSTS_PER_DAY):
        if (text := installation.get(tx, key)) is not None:
            found["setting", key] = text
    return found


def put_back(tx: Transaction, decisions: Sequence[Decision]) -> None:
    """Put decisions into the rows, in their order. Again without harm; what a newer relay wrote is passed over."""
    hosts.store_again(tx, [_host(one.key, one.value) for one in decisions if one.kind == "host"])
    for one in decisions:
        if one.kind == "ban":
            hosts.add_ban(tx, one.key) if one.value else hosts.remove_ban(tx, one.key)
        elif one.kind == "setting":
            installation.put(tx, one.key, one.value)
        elif one.kind == "import":
            _put_back_import(tx, one.key, **one.value)


def _host(hostname: str, value: dict[str, Any]) -> HostRow:
    times = {name: value[name] and datetime.fromisoformat(value[name]) for name in _TIMES}
    return HostRow(**{**value, **times}, hostname=hostname, last_seq=-1, account_count=0)


def _put_back_import(tx: Transaction, source: str, nsids: list[str], at: float, ended: bool) -> None:
    """Begun again from where the rows say that it stands: what it took is as old as they are."""
    if ended:
        collection_imports.end(tx, source, None, at)
    elif not collection_imports.was_begun(tx, source, at):
        wanted = nsids or collections.names(tx)
        collection_imports.begin(tx, source, wanted, named=bool(nsids), now=at)
