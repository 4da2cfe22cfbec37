"""Starts the relay, as `relay serve` does: `python wsgi.py [--env-file FILE]`.

The standard library and psycopg2 are patched for gevent before anything else is imported.
"""

from relay.patched import patch

patch()

from relay.commands.serve import command  # noqa: E402

if __name__ == "__main__":
    command()
