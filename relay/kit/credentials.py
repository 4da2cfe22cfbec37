"""The admin API's credentials: makes a header of a password, and reads the password out of one.

Made by `commands` and `admin`, read by `web`. Must not know which passwords are right.
"""

from __future__ import annotations

import base64
import binascii
import hmac

USER = "admin"


def basic(password: str) -> str:
    """The Authorization header with `password`, whose bytes are those that the environment has it in."""
    return f"Basic {base64.b64encode(f'{USER}:{password}'.encode(errors='surrogateescape')).decode()}"


def password_in(authorization: str) -> bytes | None:
    """The password in an Authorization header, empty where it is empty, None when the user is another one."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1", "replace")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if colon and hmac.compare_digest(user, USER.encode()) else None
