"""What the protocol refuses. One class per module of `relay.atproto`, one stable `reason` per rule.

Raised by every parser and check here; caught where an event ends, which counts it under its reason.
The reasons a module may give are listed in its `REASONS`.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """An input breaks a rule of the protocol.

    `reason` is kebab-case and stable (a metric label and a log field); `detail` is for people and may quote input.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class SyntaxInvalid(ProtocolError):
    """An identifier, a name or a date is not written as its specification says."""


class CidError(ProtocolError):
    """Not a content id of the kinds that the protocol blesses."""


class DrislError(ProtocolError):
    """Not strict DAG-CBOR."""


class CarError(ProtocolError):
    """Not a CAR v1 file, or its blocks are not what their ids say."""


class FrameError(ProtocolError):
    """An event stream frame that cannot be used.

    `fatal`: its framing or encoding is broken, not a field of it. `did` and `seq` say which event it was as far as they
    could be read.
    """

    def __init__(
        self, reason: str, detail: str = "", *, fatal: bool = False, did: str | None = None, seq: int | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.fatal = fatal
        self.did = did
        self.seq = seq


class DidDocumentError(ProtocolError):
    """Not the DID document of the DID in question."""


class KeyInvalid(ProtocolError):
    """Not a public key on one of the two curves."""


class SignatureInvalid(ProtocolError):
    """The signature is not one of this key over this message."""


class MstError(ProtocolError):
    """A tree that breaks the rules, or operations that do not invert."""


class CommitError(ProtocolError):
    """A commit object that breaks the rules or contradicts the event around it."""
