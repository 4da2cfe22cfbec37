"""What the protocol core raises: one small hierarchy, each error with a stable `reason`.

The reason is a kebab-case word from the raising module's `REASONS`; it becomes the metric label, the log field and
the entry in the docs. The detail is for people and may hold anything but secrets. Every module of `relay.atproto`
raises these and nothing else on bad input.
"""


class ProtocolError(Exception):
    """Bytes or text from outside that break a rule. `str()` is "reason: detail", or the reason alone."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class SyntaxInvalid(ProtocolError):
    """A DID, handle, NSID, TID, record key, path, datetime or host name that is not well formed."""


class CidError(ProtocolError):
    """A content id that is not CIDv1, dag-cbor or raw, sha-256."""


class DrislError(ProtocolError):
    """CBOR that is not strict DRISL (DAG-CBOR)."""


class CarError(ProtocolError):
    """A CAR file that is malformed, or a block that is not what its CID says."""


class FrameError(ProtocolError):
    """An event stream frame that cannot be taken."""


class DidDocumentError(ProtocolError):
    """A body that is no DID document, or one of another DID."""


class KeyInvalid(ProtocolError):
    """A public key that is malformed, of an unknown kind, or not on its curve."""


class SignatureInvalid(ProtocolError):
    """A signature that does not match the key."""


class MstError(ProtocolError):
    """A repository tree, or operations on it, that break the rules or do not fit together."""


class CommitError(ProtocolError):
    """A commit that breaks the rules or contradicts its event."""
