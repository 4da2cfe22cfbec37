"""How a peer's certificate is judged, the same on every Python: by its chain and its name.

Used by `net` for all that the relay connects to, and by the command line. Standard library only.
"""

from __future__ import annotations

import ssl


def verifying_context() -> ssl.SSLContext:
    """A context that verifies a peer's chain and name with the system's authorities.

    From Python 3.13 on, the default also refuses certificates that leave out what RFC 5280 asks for, such as the
    Authority Key Identifier. Browsers and other relays take them, so hosts have them.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Each handshake is a millisecond of work, and a server could ask for one after another.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context
