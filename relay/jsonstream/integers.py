"""Integers in a request as Jetstream reads them: with a plus or zeros before the digits, of ASCII alone.

Used by `cursor` and `filters`. Pure.
"""

from __future__ import annotations

MAX_CHARACTERS = 64


def whole_number(text: str, end: int) -> int | None:
    """The number, which is 0 or above and below `end`; None where it is not one."""
    digits = text.removeprefix("+")
    # The length first: int() takes quadratic time.
    if len(text) > MAX_CHARACTERS or not (digits.isascii() and digits.isdigit()):
        return None
    number = int(digits)
    return number if number < end else None
