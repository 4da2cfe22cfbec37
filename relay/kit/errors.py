"""The relay's own errors, beside `relay.atproto.errors` which covers the protocol.

Raised by every room but `atproto`; caught where an event, a request or the start ends. Each carries a stable
`reason`: the metric label, the log field and what the docs list. Knows nothing of any room.
"""


class RelayError(Exception):
    """Anything the relay refuses or fails at, with a stable kebab-case `reason` and a detail for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ConfigError(RelayError):
    """A setting that stops the start. `reason` is always `config`; the detail names the variable."""

    def __init__(self, detail: str) -> None:
        super().__init__("config", detail)


class IdentityError(RelayError):
    """A DID could not be resolved.

    Reasons: `did-not-found` (no such DID, or a form this network does not use), `did-tombstone` (deactivated for
    good), `did-document` (the answer is not this DID's document), `did-unavailable` (no answer: not a fact about
    the DID, ask again later).
    """


class AddressRefused(RelayError):
    """An outgoing connection to an address that is not public. Reasons: `address-refused`, `name-unresolved`."""


class HttpError(RelayError):
    """An outgoing request without a usable answer.

    Reasons: `http-url` (not an https address), `http-connect`, `http-timeout`, `http-tls`, `http-too-large`,
    `http-broken` (what came was not HTTP, or the connection ended early), `http-refused` (a status other than success,
    where nothing else is of use), `http-no-descriptors` (this process has no file descriptor to spare).
    """


class Refused(RelayError):
    """What is asked for is not granted; `name` and `status` are the XRPC error and HTTP status to answer with."""

    def __init__(self, reason: str, name: str, status: int, detail: str) -> None:
        super().__init__(reason, detail)
        self.name = name
        self.status = status


class CrawlRefused(Refused):
    """A crawl request, or the lifting of a ban.

    Reasons, of the name: `crawl-hostname`, `crawl-insecure`, `crawl-port`, `crawl-local`; of what the host answers:
    `crawl-unreachable`, `crawl-no-pds`; of what is allowed here: `crawl-disabled`, `crawl-host-banned`,
    `crawl-domain-banned`, `crawl-new-hosts`; and `crawl-busy`.
    """


class ActionRefused(Refused):
    """An admin's action that does not fit what is. Reasons: `host-not-connected`, `host-busy`,
    `domain-not-banned`, `import-not-running`, `heal-not-running`, `healing-off`.
    """


class BackfillError(RelayError):
    """Another relay does not give its collection index.

    Reasons: `backfill-source` (it has none to give, or may not be asked), `backfill-refused` (not of this collection),
    `backfill-unavailable` (no answer: ask again later), `backfill-answer` (the answer is not a page),
    `backfill-endless` (its pages do not come to an end). `retry_after` is how many seconds the source wants to be left
    alone.
    """

    def __init__(self, reason: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after


class HealError(RelayError):
    """A host does not give what the relay missed.

    Reasons: `heal-unanswered` (no answer, ask later), `heal-answer` (the answer is not what was asked for),
    `heal-endless` (its list of accounts does not come to an end). `retry_after` is how many seconds the host wants to
    be left alone.
    """

    def __init__(self, reason: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after


class HostUnknown(RelayError):
    """No host of that name is in the table."""

    def __init__(self, hostname: str) -> None:
        super().__init__("host-unknown", hostname)


class AccountUnknown(RelayError):
    """No event of this DID was ever accepted here."""

    def __init__(self, did: str) -> None:
        super().__init__("account-unknown", did)


class ImportBusy(RelayError):
    """An import of another relay's collection index is under way from another source."""

    def __init__(self, source: str) -> None:
        super().__init__("backfill-busy", f"the import from {source} is under way: stop it first")


class LogError(RelayError):
    """The segment log cannot be written or read, or is not one for this mode.

    Reasons: `log-io`, `log-locked`, `log-format`, `log-trimmed`, `log-edge` (an edge wrote it, and it
    was not promoted), `log-relay` (it is a relay's, or was promoted).
    """


class StoreError(RelayError):
    """The database is not there or refuses the work.

    Reasons: `store-unavailable`, `store-damaged`, `store-behind` (it is brought up to the log first), `store-schema`,
    `store-mode`, `store-locked` (another relay uses it), `store-pooled` (a pooler before it keeps no lock), `store-log`
    (it belongs to another log).
    """
