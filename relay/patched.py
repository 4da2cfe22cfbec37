"""Patches the standard library and psycopg2 for gevent, once, before anything of the relay is imported.

Called first thing by `wsgi.py` and by the commands that run relay parts. Imports nothing of the relay.
"""

from __future__ import annotations


def patch() -> None:
    """Make blocking calls switch greenlets, PostgreSQL's included."""
    from gevent import monkey

    monkey.patch_all()

    from psycogreen.gevent import patch_psycopg

    patch_psycopg()
