"""DID documents: the key, the host and the handle of an account, out of hostile JSON.

Called by `identity` with a fetched body, or with one made of a line of the PLC export. A document without a usable key
or host is still a document: what is missing is None, and the gate decides. Must not know how documents are fetched or
kept.
https://atproto.com/specs/did
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from relay.atproto.crypto import PublicKey, parse_verification_method
from relay.atproto.errors import DidDocumentError, KeyInvalid, SyntaxInvalid
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.atproto.syntax import is_handle

REASONS = frozenset({"did-document-id", "did-document-json", "did-document-size"})

MAX_DOCUMENT = 65_536
# How many entries of one id are looked at: reading a key takes as long as a signature.
MAX_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class DidDocument:
    """What a relay needs of a DID document. `handle` is what the document claims, lower case, not proven."""

    did: str
    key: PublicKey | None
    pds: Endpoint | None
    handle: str | None


def parse(body: bytes, did: str) -> DidDocument:
    """Read the document of `did`. DidDocumentError when it is not a JSON object, is too large, or is another DID's.

    Where several entries have the same id, the first one that is of use counts.
    """
    document = _load(body)
    if document.get("id") != did:
        raise DidDocumentError("did-document-id", f"{document.get('id')!r}"[:120])
    return DidDocument(did, _key(document, did), _pds(document, did), _handle(document))


def _load(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_DOCUMENT:
        raise DidDocumentError("did-document-size", f"{len(body)} bytes")
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DidDocumentError("did-document-json", str(error)) from None
    if not isinstance(document, dict):
        raise DidDocumentError("did-document-json", "not an object")
    return document


def _key(document: dict[str, Any], did: str) -> PublicKey | None:
    for method in _entries(document.get("verificationMethod"), did, "#atproto"):
        kind, multibase = method.get("type"), method.get("publicKeyMultibase")
        if method.get("controller") == did and isinstance(kind, str) and isinstance(multibase, str):
            with suppress(KeyInvalid):
                return parse_verification_method(kind, multibase)
    return None


def _pds(document: dict[str, Any], did: str) -> Endpoint | None:
    for service in _entries(document.get("service"), did, "#atproto_pds"):
        url = service.get("serviceEndpoint")
        if service.get("type") == "AtprotoPersonalDataServer" and isinstance(url, str) and _is_http(url):
            with suppress(SyntaxInvalid):
                return parse_endpoint(url)
    return None


def _handle(document: dict[str, Any]) -> str | None:
    names = document.get("alsoKnownAs")
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.startswith("at://") and is_handle(name[5:]):
            return name[5:].lower()
    return None


def _entries(entries: object, did: str, fragment: str) -> list[dict[str, Any]]:
    """The first entries with this id, full or relative."""
    found = [
        entry
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and entry.get("id") in (fragment, did + fragment)
    ]
    return found[:MAX_ENTRIES]


def _is_http(url: str) -> bool:
    return url.lower().startswith(("https://", "http://"))
