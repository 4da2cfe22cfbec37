"""How identifiers and dates are written: DID, handle, NSID, TID, record path and datetime.

Called wherever such a text comes from outside. `is_x` answers, `check_x` raises SyntaxInvalid. Lengths are checked
before patterns, and no pattern backtracks. https://atproto.com/specs (one page each)
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.atproto.errors import SyntaxInvalid

REASONS = frozenset(
    {
        "account-did",
        "did-syntax",
        "nsid-syntax",
        "tid-syntax",
    }
)

MAX_DID = 2048
MAX_HANDLE = 253
MAX_NSID = 317
MAX_DATETIME = 64
# The tree stores paths as keys; nothing that follows the specification writes longer ones (repository, MST).
MAX_RECORD_PATH = 1024

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"

_TID_TO_BASE_32 = str.maketrans(TID_ALPHABET, "0123456789abcdefghijklmnopqrstuv")

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_LAST_LABEL = r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_HANDLE = re.compile(rf"(?:{_LABEL}\.)+{_LAST_LABEL}")
_NSID = re.compile(rf"{_LAST_LABEL}(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}")
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")
_RECORD_KEY = re.compile(r"(?!\.\.?\Z)[a-zA-Z0-9._~:-]{1,512}")
# The calendar is checked as far as a pattern can. A time before the year 0 is refused, and so is the second 60, which
# the reference implementation's consumers cannot read.
_DATETIME = re.compile(
    r"(?!0000-01-01T.{0,30}\+)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,20})?"
    r"(?:Z|(?!-00:00)[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_PLC = re.compile(r"did:plc:[a-z2-7]{24}")
_LOCAL = re.compile(r"localhost(?:%3A[1-9][0-9]{0,4})?")


def is_did(value: str) -> bool:
    """Any DID, of any method."""
    return len(value) <= MAX_DID and _DID.fullmatch(value) is not None


def is_account_did(value: str) -> bool:
    """A DID an account can have here: did:plc, or did:web of a whole host in lower case."""
    if _PLC.fullmatch(value):
        return True
    method, _, host = value.partition("did:web:")
    # DIDs are compared letter by letter, host names are not: only one spelling of a host may be an account.
    return not method and ((is_handle(host) and host == host.lower()) or _LOCAL.fullmatch(host) is not None)


def is_handle(value: str) -> bool:
    """A handle: a domain name of two labels or more."""
    return len(value) <= MAX_HANDLE and _HANDLE.fullmatch(value) is not None


def is_nsid(value: str) -> bool:
    """A name of a lexicon, such as a collection."""
    return len(value) <= MAX_NSID and _NSID.fullmatch(value) is not None


# Nearly all records are in a few dozen collections.
_is_collection = lru_cache(1024)(is_nsid)


def is_tid(value: str) -> bool:
    """A timestamp identifier, such as a rev."""
    return _TID.fullmatch(value) is not None


def is_record_path(value: str) -> bool:
    """`collection/rkey`, the key of a record in its repository."""
    collection, _, key = value.partition("/")
    return len(value) <= MAX_RECORD_PATH and _is_collection(collection) and _RECORD_KEY.fullmatch(key) is not None


def is_datetime(value: str) -> bool:
    """A date and time in the common subset of RFC 3339, ISO 8601 and the web's."""
    return len(value) <= MAX_DATETIME and _DATETIME.fullmatch(value) is not None


def check_did(value: str) -> None:
    """Raise SyntaxInvalid `did-syntax` unless `is_did`."""
    _require(is_did(value), "did-syntax", value)


def check_account_did(value: str) -> None:
    """Raise SyntaxInvalid `account-did` unless `is_account_did`."""
    _require(is_account_did(value), "account-did", value)


def check_nsid(value: str) -> None:
    """Raise SyntaxInvalid `nsid-syntax` unless `is_nsid`."""
    _require(is_nsid(value), "nsid-syntax", value)


def tid_micros(tid: str) -> int:
    """The time in a TID, in microseconds since the epoch. SyntaxInvalid when it is not a TID."""
    if _TID.fullmatch(tid) is None:
        raise SyntaxInvalid("tid-syntax", repr(tid[:80]))
    return int(tid.translate(_TID_TO_BASE_32), 32) >> 10


def _require(holds: bool, reason: str, value: str) -> None:
    if not holds:
        raise SyntaxInvalid(reason, repr(value[:80]))
