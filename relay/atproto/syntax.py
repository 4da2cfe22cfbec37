"""How identifiers and dates are written: DID, handle, NSID, TID, record key and path, datetime, URI and language.

Called wherever such a text comes from outside. `is_x` answers, `check_x` raises SyntaxInvalid with the reason
`x-syntax`. Lengths are checked before patterns, and no pattern backtracks. https://atproto.com/specs (one page each)
"""

from __future__ import annotations

import re

from relay.atproto.errors import SyntaxInvalid

REASONS = frozenset(
    {
        "account-did",
        "at-identifier-syntax",
        "at-uri-syntax",
        "datetime-syntax",
        "did-syntax",
        "handle-syntax",
        "language-syntax",
        "nsid-syntax",
        "record-key-syntax",
        "record-path-syntax",
        "tid-syntax",
        "uri-syntax",
    }
)

MAX_DID = 2048
MAX_HANDLE = 253
MAX_NSID = 317
MAX_DATETIME = 64
MAX_URI = 8192
MAX_LANGUAGE = 128
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
_RECORD_KEY = re.compile(r"[a-zA-Z0-9._~:-]{1,512}")
_RECORD_PATH = re.compile(rf"(?=[^/]{{1,{MAX_NSID}}}/){_NSID.pattern}/(?!\.\.?\Z){_RECORD_KEY.pattern}")
# The calendar is checked as far as a pattern can. A time before the year 0 is refused, and so is the second 60, which
# the reference implementation's consumers cannot read.
_DATETIME = re.compile(
    r"(?!0000-01-01T.{0,30}\+)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,20})?"
    r"(?:Z|(?!-00:00)[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# Non-ASCII is for IRIs, and white space for nobody.
_URI = re.compile(r"[a-z][a-z.-]{0,80}:[!-~]+")
# RFC 5646, with the primary subtag in lower case. Groups: variants, extensions.
_LANGUAGE = re.compile(
    r"[a-z]{2,3}(?:-[a-zA-Z]{3}){0,3}(?:-[a-zA-Z]{4})?(?:-(?:[a-zA-Z]{2}|[0-9]{3}))?"
    r"((?:-(?:[a-zA-Z0-9]{5,8}|[0-9][a-zA-Z0-9]{3}))*)"
    r"((?:-[0-9a-wyzA-WYZ](?:-[a-zA-Z0-9]{2,8})+)*)(?:-[xX](?:-[a-zA-Z0-9]{1,8})+)?"
    r"|[xX](?:-[a-zA-Z0-9]{1,8})+"
    # registered before the RFC, and not like it
    r"|en-GB-oed|sgn-BE-FR|sgn-BE-NL|sgn-CH-DE"
    r"|i-(?:ami|bnn|default|enochian|hak|klingon|lux|mingo|navajo|pwn|tao|tay|tsu)"
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


def is_tid(value: str) -> bool:
    """A timestamp identifier, such as a rev."""
    return _TID.fullmatch(value) is not None


def is_record_key(value: str) -> bool:
    """The last part of a record's path."""
    return _RECORD_KEY.fullmatch(value) is not None and value not in (".", "..")


def is_record_path(value: str) -> bool:
    """`collection/rkey`, the key of a record in its repository."""
    return len(value) <= MAX_RECORD_PATH and _RECORD_PATH.fullmatch(value) is not None


def is_datetime(value: str) -> bool:
    """A date and time in the common subset of RFC 3339, ISO 8601 and the web's."""
    return len(value) <= MAX_DATETIME and _DATETIME.fullmatch(value) is not None


def is_at_identifier(value: str) -> bool:
    """A DID or a handle: either names an account."""
    return is_did(value) or is_handle(value)


def is_at_uri(value: str) -> bool:
    """`at://` and an account, a collection of it, or a record in that: the form that records refer to others in."""
    if len(value) > MAX_URI or not value.startswith("at://"):
        return False
    authority, slash, path = value.removeprefix("at://").partition("/")
    return is_at_identifier(authority) and (not slash or is_nsid(path) or is_record_path(path))


def is_uri(value: str) -> bool:
    """A URI of any scheme, as far as all schemes have in common (RFC 3986)."""
    return len(value) <= MAX_URI and _URI.fullmatch(value) is not None


def is_language(value: str) -> bool:
    """A language tag (BCP 47). Whether its subtags are registered is not looked up."""
    match = _LANGUAGE.fullmatch(value) if len(value) <= MAX_LANGUAGE else None
    if match is None:
        return False
    variants, extensions = (subtags.lower().split("-")[1:] for subtags in match.groups(""))
    once = variants + [subtag for subtag in extensions if len(subtag) == 1]
    return len(once) == len(set(once))


def check_did(value: str) -> None:
    """Raise SyntaxInvalid `did-syntax` unless `is_did`."""
    _require(is_did(value), "did-syntax", value)


def check_account_did(value: str) -> None:
    """Raise SyntaxInvalid `account-did` unless `is_account_did`."""
    _require(is_account_did(value), "account-did", value)


def check_handle(value: str) -> None:
    """Raise SyntaxInvalid `handle-syntax` unless `is_handle`."""
    _require(is_handle(value), "handle-syntax", value)


def check_nsid(value: str) -> None:
    """Raise SyntaxInvalid `nsid-syntax` unless `is_nsid`."""
    _require(is_nsid(value), "nsid-syntax", value)


def check_tid(value: str) -> None:
    """Raise SyntaxInvalid `tid-syntax` unless `is_tid`."""
    _require(is_tid(value), "tid-syntax", value)


def check_record_key(value: str) -> None:
    """Raise SyntaxInvalid `record-key-syntax` unless `is_record_key`."""
    _require(is_record_key(value), "record-key-syntax", value)


def check_record_path(value: str) -> None:
    """Raise SyntaxInvalid `record-path-syntax` unless `is_record_path`."""
    _require(is_record_path(value), "record-path-syntax", value)


def check_datetime(value: str) -> None:
    """Raise SyntaxInvalid `datetime-syntax` unless `is_datetime`."""
    _require(is_datetime(value), "datetime-syntax", value)


def check_at_identifier(value: str) -> None:
    """Raise SyntaxInvalid `at-identifier-syntax` unless `is_at_identifier`."""
    _require(is_at_identifier(value), "at-identifier-syntax", value)


def check_at_uri(value: str) -> None:
    """Raise SyntaxInvalid `at-uri-syntax` unless `is_at_uri`."""
    _require(is_at_uri(value), "at-uri-syntax", value)


def check_uri(value: str) -> None:
    """Raise SyntaxInvalid `uri-syntax` unless `is_uri`."""
    _require(is_uri(value), "uri-syntax", value)


def check_language(value: str) -> None:
    """Raise SyntaxInvalid `language-syntax` unless `is_language`."""
    _require(is_language(value), "language-syntax", value)


def tid_micros(tid: str) -> int:
    """The time in a TID, in microseconds since the epoch. SyntaxInvalid when it is none."""
    if _TID.fullmatch(tid) is None:
        raise SyntaxInvalid("tid-syntax", repr(tid[:80]))
    return int(tid.translate(_TID_TO_BASE_32), 32) >> 10


def _require(holds: bool, reason: str, value: str) -> None:
    if not holds:
        raise SyntaxInvalid(reason, repr(value[:80]))
