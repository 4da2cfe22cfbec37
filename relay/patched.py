"""Patches the standard library for gevent, once, before anything of the relay is imported.

Called first thing by `wsgi.py` and by the commands that run relay parts. Imports nothing of the relay. psycopg2 is made
to switch greenlets by `store.postgres_pool`, before its first connection: loading it for SQLite would cost 5 MB.
"""

from __future__ import annotations


def patch() -> None:
    """Make blocking calls switch greenlets; keep the metrics' locks native."""
    from gevent import config, monkey

    # Who spawned a greenlet, with the stack of then: a kilobyte for each of thousands of hosts, and nobody asks.
    config.track_greenlet_tree = False
    monkey.patch_all()
    _import_with_native_locks()


def _import_with_native_locks() -> None:
    """Import prometheus_client with the locks of native threads.

    A native thread reads the instruments while greenlets move them. With gevent's locks a greenlet would then have to
    switch in the middle of `inc()`, where nobody expects it; a native lock is held for microseconds only.
    """
    import threading

    from gevent import monkey

    patched = threading.Lock
    threading.Lock = monkey.get_original("threading", "Lock")
    try:
        import prometheus_client  # noqa: F401
    finally:
        threading.Lock = patched
