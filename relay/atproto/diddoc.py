"""DID documents: the key, the host and the handle of an account, out of hostile JSON.

Called by the identity resolver with a fetched body. A document without a usable key or host is still a document:
what is missing is None, and the gate decides. Must not know how documents are fetched or kept.
https://atproto.com/specs/did
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from relay.atproto.crypto import PublicKey, parse_verification_method
from relay.atproto.errors import DidDocumentError, KeyInvalid, SyntaxInvalid
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.atproto.syntax import is_handle

REASONS = frozenset({"did-document-id", "did-document-json", "did-document-size"})

MAX_DOCUMENT = 65_536


@dataclass(frozen=True, slots=True)
class DidDocument:
    """What a relay needs of a DID document. `handle` is what the document claims, lower case, not proven."""

    did: str
    key: PublicKey | None
    pds: Endpoint | None
    handle: str | None


def parse(body: bytes, did: str) -> DidDocument:
    """Read the document of `did`. DidDocumentError when it is no JSON object, too large, or another DID's.

    Where several entries have the same id the first one counts, also when it is of no use.
    """
    document = _load(body)
    if document.get("id") != did:
        raise DidDocumentError("did-document-id", f"{document.get('id')!r}"[:120])
    return DidDocument(did, _key(document, did), _pds(document, did), _handle(document))


def _load(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_DOCUMENT:
        raise DidDocumentError("did-document-size", f"{len(body)} bytes")
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DidDocumentError("did-document-json", str(error)) from None
    if not isinstance(document, dict):
        raise DidDocumentError("did-document-json", "not an object")
    return document


def _key(document: dict[str, Any], did: str) -> PublicKey | None:
    method = _entry(document.get("verificationMethod"), did, "#atproto")
    kind, multibase = method.get("type"), method.get("publicKeyMultibase")
    if not isinstance(kind, str) or not isinstance(multibase, str):
        return None
    try:
        return parse_verification_method(kind, multibase)
    except KeyInvalid:
        return None


def _pds(document: dict[str, Any], did: str) -> Endpoint | None:
    service = _entry(document.get("service"), did, "#atproto_pds")
    url = service.get("serviceEndpoint")
    if service.get("type") != "AtprotoPersonalDataServer" or not isinstance(url, str) or "://" not in url:
        return None
    try:
        return parse_endpoint(url)
    except SyntaxInvalid:
        return None


def _handle(document: dict[str, Any]) -> str | None:
    names = document.get("alsoKnownAs")
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.startswith("at://") and is_handle(name[5:]):
            return name[5:].lower()
    return None


def _entry(entries: object, did: str, fragment: str) -> dict[str, Any]:
    """The first entry with this id, full or relative; empty when there is none."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("id") in (fragment, did + fragment):
            return entry
    return {}
