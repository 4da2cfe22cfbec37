"""Starts the relay, as `relay serve` does: `python wsgi.py [--env-file FILE]`.

The standard library is patched for gevent before anything else is imported, psycopg2 before its first connection.
"""

from relay.patched import patch

patch()

from relay.commands.serve import serve  # noqa: E402

if __name__ == "__main__":
    serve()
