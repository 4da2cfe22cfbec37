"""What lists of strangers that come page by page have in common: cursors that can be kept, and an end.

Used by whatever pages another server's lists, in any room. Asks nobody itself.
"""

from __future__ import annotations

CURSOR_CHARACTERS = 1024


def read_cursor(value: object) -> str | None:
    """A cursor that can be stored and sent back; absent and empty ones end a list. Raises ValueError."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > CURSOR_CHARACTERS or not value.isprintable():
        raise ValueError("the cursor is not a short printable text")
    return value


class Ending:
    """Tells a list that goes in circles, with two cursors remembered (Brent's way): a round of any length is found, and
    one of a single page at once.

    `cursor` is what the first page is asked with.
    """

    def __init__(self, cursor: str | None = None) -> None:
        self._last = cursor
        self._kept = cursor
        self._pages = 0
        self._until = 1

    def repeats(self, cursor: str | None) -> bool:
        """True when `cursor`, which the next page would be asked with, was used before."""
        if cursor is None:
            return False
        if cursor in (self._last, self._kept):
            return True
        self._last = cursor
        self._pages += 1
        if self._pages == self._until:
            self._kept, self._until = cursor, self._until * 2
            self._pages = 0
        return False
