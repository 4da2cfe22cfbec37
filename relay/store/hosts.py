"""The `host` table, our `host_state` beside it, and `domain_bans`: every host ever known, and which may not be crawled.

Read and written by `hosts`; `web` lists it. Cursors and account counts are written by `projection` alone, so that
they never get ahead of the log. Must not know which status may follow which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from relay.store.database import Database, Row, Transaction

RateTier = Literal["per_second", "per_hour", "per_day"]
RATE_TIERS: tuple[RateTier, ...] = ("per_second", "per_hour", "per_day")

# A block list that is taken in has tens of thousands.
BANS_AT_ONCE = 500


@dataclass(slots=True)
class HostRow:
    """A host. `last_seq` is -1 when no event was logged; the `last_…` times are seconds since the epoch.

    `per_second`, `per_hour` and `per_day` are an admin's rate limits, None where the rule for all applies. The host's
    records above `cursor_since` in the log have numbers that `last_seq` can be compared with.
    """

    id: int
    hostname: str
    no_ssl: bool
    account_limit: int
    trusted: bool
    status: str
    last_seq: int
    account_count: int
    created_at: datetime
    alerts_silenced: bool = False
    alert_state: str = "ok"
    alert_sent_at: datetime | None = None
    failures: int = 0
    last_attempt_at: float | None = None
    last_connected_at: float | None = None
    last_event_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    per_second: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    cursor_since: int = 0


# indigo's columns may be empty, in rows of its older versions or made by hand.
_SELECT = (
    "SELECT h.id, h.hostname, h.no_ssl, coalesce(h.account_limit, 0), h.trusted, coalesce(h.status, 'active'),"
    " coalesce(h.last_seq, -1), coalesce(h.account_count, 0), h.created_at,"
    " h.account_limit_alerts_silenced, h.account_limit_alert_state, h.account_limit_alert_sent_at,"
    " coalesce(s.failures, 0), s.last_attempt_at, s.last_connected_at, s.last_event_at, s.last_error, s.last_error_at,"
    " s.per_second, s.per_hour, s.per_day, coalesce(s.cursor_since, 0)"
    " FROM host h LEFT JOIN host_state s ON s.host_id = h.id"
)


def insert(tx: Transaction, hostname: str, *, no_ssl: bool, account_limit: int, trusted: bool) -> HostRow:
    """The host of that name, made with status `active` when it is not there; then the arguments are not used."""
    now = _now_text()
    tx.execute(
        "INSERT INTO host (created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq,"
        " account_count) VALUES (?, ?, ?, ?, ?, ?, 'active', -1, 0) ON CONFLICT (hostname) DO NOTHING",
        (now, now, hostname, no_ssl, account_limit, trusted),
    )
    row = by_hostname(tx, hostname)
    assert row is not None
    return row


def by_id(tx: Transaction, host_id: int) -> HostRow | None:
    """The host numbered `host_id`."""
    row = tx.row(f"{_SELECT} WHERE h.id = ?", (host_id,))
    return _host(row) if row else None


def by_hostname(tx: Transaction, hostname: str) -> HostRow | None:
    """The host of that normalised name."""
    row = tx.row(f"{_SELECT} WHERE h.hostname = ?", (hostname,))
    return _host(row) if row else None


def all_rows(tx: Transaction) -> list[HostRow]:
    """Every host, by id."""
    return [_host(row) for row in tx.rows(f"{_SELECT} ORDER BY h.id")]


def list_hosts(tx: Transaction, after_id: int, limit: int) -> list[HostRow]:
    """Up to `limit` hosts that sent an event, above `after_id`, by id; whatever their status."""
    return [
        _host(row)
        for row in tx.rows(f"{_SELECT} WHERE h.id > ? AND h.last_seq > 0 ORDER BY h.id LIMIT ?", (after_id, limit))
    ]


def set_status(tx: Transaction, host_id: int, status: str) -> None:
    """Store a host's status: active, idle, offline, throttled or banned."""
    tx.execute("UPDATE host SET status = ?, updated_at = ? WHERE id = ?", (status, _now_text(), host_id))


def set_account_limit(tx: Transaction, host_id: int, account_limit: int) -> None:
    """Store how many accounts a host may have."""
    tx.execute("UPDATE host SET account_limit = ?, updated_at = ? WHERE id = ?", (account_limit, _now_text(), host_id))


def set_rates(tx: Transaction, host_id: int, rates: dict[RateTier, int | None]) -> None:
    """Store an admin's rate limits for the tiers named; None gives the tier back to the rule for all."""
    tx.execute("INSERT INTO host_state (host_id) VALUES (?) ON CONFLICT (host_id) DO NOTHING", (host_id,))
    for tier in RATE_TIERS:
        if tier in rates:
            tx.execute(f"UPDATE host_state SET {tier} = ? WHERE host_id = ?", (rates[tier], host_id))


def set_alert(tx: Transaction, host_id: int, *, silenced: bool, state: str, sent_at: datetime | None) -> None:
    """Store where a host's account limit alert stands."""
    tx.execute(
        "UPDATE host SET account_limit_alerts_silenced = ?, account_limit_alert_state = ?,"
        " account_limit_alert_sent_at = ?, updated_at = ? WHERE id = ?",
        (silenced, state, None if sent_at is None else _time_text(sent_at), _now_text(), host_id),
    )


def save_states(tx: Transaction, hosts: Sequence[HostRow]) -> None:
    """Store failures, the `last_…` times and the last error of different hosts; nothing else of the rows."""
    if hosts:
        tx.many(
            "INSERT INTO host_state (host_id, failures, last_attempt_at, last_connected_at, last_event_at, last_error,"
            " last_error_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (host_id) DO UPDATE SET"
            " failures = excluded.failures, last_attempt_at = excluded.last_attempt_at,"
            " last_connected_at = excluded.last_connected_at, last_event_at = excluded.last_event_at,"
            " last_error = excluded.last_error, last_error_at = excluded.last_error_at",
            [
                (
                    host.id,
                    host.failures,
                    host.last_attempt_at,
                    host.last_connected_at,
                    host.last_event_at,
                    host.last_error,
                    host.last_error_at,
                )
                for host in hosts
            ],
        )


def reserve_ids(tx: Transaction, highest: int) -> None:
    """Give no new host an id up to `highest`."""
    if tx.engine == "postgres":
        tx.row(
            "SELECT setval(pg_get_serial_sequence('host', 'id'), greatest(?, coalesce(max(id), 0), 1)) FROM host",
            (highest,),
        )
    elif not tx.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'host'", (highest,)):
        tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('host', ?)", (highest,))


def store_again(tx: Transaction, hosts: Sequence[HostRow]) -> None:
    """Put hosts back as they are here, in a database that may lack them or what admins changed.

    Cursors and counts are left as they are, and start at nothing in a row that was missing. A row that took the id or
    the name of one of them meanwhile goes.
    """
    if not hosts:
        return
    named = [(host.id, host.hostname) for host in hosts]
    tx.many(
        "WITH kept (id, hostname) AS (VALUES (?, ?)) DELETE FROM host WHERE EXISTS (SELECT 1 FROM kept"
        " WHERE (host.id = kept.id AND host.hostname <> kept.hostname)"
        " OR (host.hostname = kept.hostname AND host.id <> kept.id))",
        named,
    )
    now = _now_text()
    tx.many(
        "INSERT INTO host (id, created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq,"
        " account_count, account_limit_alerts_silenced, account_limit_alert_state, account_limit_alert_sent_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " updated_at = excluded.updated_at, account_limit = excluded.account_limit, trusted = excluded.trusted,"
        " status = excluded.status,"
        " account_limit_alerts_silenced = excluded.account_limit_alerts_silenced,"
        " account_limit_alert_state = excluded.account_limit_alert_state,"
        " account_limit_alert_sent_at = excluded.account_limit_alert_sent_at",
        [
            (
                host.id,
                _time_text(host.created_at),
                now,
                host.hostname,
                host.no_ssl,
                host.account_limit,
                host.trusted,
                host.status,
                -1,
                0,
                host.alerts_silenced,
                host.alert_state,
                None if host.alert_sent_at is None else _time_text(host.alert_sent_at),
            )
            for host in hosts
        ],
    )
    save_states(tx, hosts)
    for tier in RATE_TIERS:
        tx.many(
            f"WITH new (id, rate) AS (VALUES (?, ?)) UPDATE host_state SET {tier} = CAST(new.rate AS bigint) FROM new"
            " WHERE host_state.host_id = new.id",
            [(host.id, getattr(host, tier)) for host in hosts],
        )
    if tx.engine == "postgres":
        tx.row("SELECT setval(pg_get_serial_sequence('host', 'id'), max(id)) FROM host")


def add_ban(tx: Transaction, domain: str) -> bool:
    """Ban `domain`, given in lower case. False when it was banned already."""
    added = tx.execute(
        "INSERT INTO domain_bans (created_at, domain) VALUES (?, ?) ON CONFLICT (domain) DO NOTHING",
        (_now_text(), domain),
    )
    return added > 0


def remove_ban(tx: Transaction, domain: str) -> bool:
    """Lift the ban of `domain`. False when there was none."""
    # Compared without case: indigo stored domains as they were typed.
    return tx.execute("DELETE FROM domain_bans WHERE lower(domain) = ?", (domain,)) > 0


def all_bans(tx: Transaction) -> list[str]:
    """Every banned domain, in the order they were banned."""
    return [domain for (domain,) in tx.rows("SELECT domain FROM domain_bans WHERE domain IS NOT NULL ORDER BY id")]


def bans_after(tx: Transaction, number: int, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` banned domains in the order they were banned, each with its number, from above `number` on."""
    sql = "SELECT id, domain FROM domain_bans WHERE domain IS NOT NULL AND id > ? ORDER BY id LIMIT ?"
    return [(ban, domain) for ban, domain in tx.rows(sql, (number, limit))]


def each_ban(db: Database) -> Iterator[str]:
    """What `all_bans` gives, read some at a time. Raises StoreError."""
    number = 0
    while bans := db.read(bans_after, number, BANS_AT_ONCE):
        number = bans[-1][0]
        yield from (domain for _, domain in bans)


def is_banned(tx: Transaction, domain: str) -> bool:
    """Whether `domain`, given in lower case, is banned by this very name."""
    return tx.row("SELECT 1 FROM domain_bans WHERE lower(domain) = ?", (domain,)) is not None


def ban_of(tx: Transaction, hostname: str) -> str | None:
    """The banned domain that `hostname` is or lies under, None when it is free. A port is not part of the name."""
    found = tx.rows_in("SELECT domain FROM domain_bans WHERE lower(domain) IN ({})", suffixes(hostname))
    return found[0][0] if found else None


def suffixes(hostname: str) -> list[str]:
    """The names by which a host can be banned: itself and every parent of at least two labels."""
    labels = hostname.partition(":")[0].split(".")
    return [".".join(labels[start:]) for start in range(max(1, len(labels) - 1))]


def _host(row: Row) -> HostRow:
    id_, hostname, no_ssl, account_limit, trusted, status, last_seq, account_count, created_at, *rest = row
    silenced, alert_state, alert_sent_at, *state = rest
    return HostRow(
        id_,
        hostname,
        bool(no_ssl),
        account_limit,
        bool(trusted),
        status,
        last_seq,
        account_count,
        _time(created_at) or datetime.fromtimestamp(0, UTC),
        bool(silenced),
        alert_state or "ok",
        _time(alert_sent_at),
        *state,
    )


def _time(stored: object) -> datetime | None:
    """A time in the table, None when there is none that can be read. Without a time zone it is UTC."""
    # SQLite has no time type: indigo, and so do we, keeps text there that its driver can read back.
    if isinstance(stored, str):
        try:
            stored = datetime.fromisoformat(stored)
        except ValueError:
            return None
    if not isinstance(stored, datetime):
        return None
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


def _time_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(sep=" ")


def _now_text() -> str:
    return _time_text(datetime.now(UTC))
