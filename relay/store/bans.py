"""The `domain_bans` table: domains none of whose hosts may be crawled.

Written by the admin API, asked by `upstream` before it takes a host. Names are given in lower case; the table is
compared without case, since indigo stored domains as they were typed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from relay.store.database import Transaction


def add(tx: Transaction, domain: str) -> bool:
    """Ban `domain`. False when it was banned already."""
    now = datetime.now(UTC).isoformat(sep=" ")
    added = tx.execute(
        "INSERT INTO domain_bans (created_at, domain) VALUES (?, ?) ON CONFLICT (domain) DO NOTHING", (now, domain)
    )
    return added > 0


def remove(tx: Transaction, domain: str) -> bool:
    """Lift the ban of `domain`. False when there was none."""
    return tx.execute("DELETE FROM domain_bans WHERE lower(domain) = ?", (domain,)) > 0


def all_domains(tx: Transaction) -> list[str]:
    """Every banned domain, in the order they were banned."""
    return [domain for (domain,) in tx.rows("SELECT domain FROM domain_bans ORDER BY id")]


def ban_of(tx: Transaction, hostname: str) -> str | None:
    """The banned domain that `hostname` is or lies under, None when it is free. A port is no part of the name."""
    found = tx.rows_in("SELECT domain FROM domain_bans WHERE lower(domain) IN ({})", suffixes(hostname))
    return found[0][0] if found else None


def suffixes(hostname: str) -> list[str]:
    """The names by which a host can be banned: itself and every parent of at least two labels."""
    labels = hostname.partition(":")[0].split(".")
    return [".".join(labels[start:]) for start in range(max(1, len(labels) - 1))]
