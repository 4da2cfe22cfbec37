"""The rules that bind a relay and can be seen from outside, each with its source. Read by `suite` and `report`.

Not here, because loopback cannot show it: that a relay contacts no private addresses, speaks HTTPS in public, answers
429 under overload, and tells a cursor older than its window.
"""

from __future__ import annotations

from typing import NamedTuple

SYNC = "https://atproto.com/specs/sync"
EVENTS = "https://atproto.com/specs/event-stream"
FRAMING = f"{EVENTS}#framing"
SEQUENCE = f"{EVENTS}#sequence-numbers"
REPOSITORY = "https://atproto.com/specs/repository"
DATA = "https://atproto.com/specs/data-model"
CRYPTOGRAPHY = "https://atproto.com/specs/cryptography"
ACCOUNT = "https://atproto.com/specs/account"
DID = "https://atproto.com/specs/did"
XRPC = "https://atproto.com/specs/xrpc"
SYNC_DRAFT = "https://datatracker.ietf.org/doc/html/draft-holmgren-at-synchronization-00"
REPOSITORY_DRAFT = "https://datatracker.ietf.org/doc/html/draft-holmgren-at-repository-02"


class Rule(NamedTuple):
    """`name` is stable; `source` is a document, with the section where that is numbered."""

    name: str
    text: str
    source: str


def _sync_draft(section: str) -> str:
    return f"{SYNC_DRAFT}#section-{section}"


def _repository_draft(section: str) -> str:
    return f"{REPOSITORY_DRAFT}#section-{section}"


_ALL = (
    # What hosts send
    Rule("unknown-type", "Messages of an unknown kind are ignored.", FRAMING),
    Rule("unknown-field", "Unknown fields are ignored; a known field of another type is an error.", EVENTS),
    Rule("unreadable", "An unreadable message is rejected, and never stops its host's stream.", _sync_draft("4.5")),
    Rule("message-size", "A message has at most 5 MB.", SYNC),
    Rule("canonical", "Events are DRISL: definite lengths, shortest forms, sorted keys, none twice.", DATA),
    Rule("host-seq", "A host's seq rises; what is repeated is not an event.", SEQUENCE),
    Rule("host-resume", "A host is followed from where it was left, without gaps or repetitions.", SEQUENCE),
    Rule("host-notices", "A notice or an error of a host does not end its subscription for good.", FRAMING),
    # Commits
    Rule("commit", "Creations, updates and deletions pass, blocks byte for byte; a commit lacks no field.", SYNC),
    Rule("commit-old-fields", "`tooBig` and `blobs` are ignored; `ops` is a list.", _sync_draft("4.4.2")),
    Rule("blocks-size", "`blocks` has at most 2,000,000 bytes.", SYNC),
    Rule("record-size", "A record has at most 1,000,000 bytes.", SYNC),
    Rule("ops-count", "A commit has at most 200 operations, and may have none.", SYNC),
    Rule("chain", "`prevData` decides whether a commit follows, not `since`.", _sync_draft("4.5")),
    Rule("sync", "`#sync` states the current commit, with its block.", SYNC),
    Rule("sync-rollback", "A `#sync` of an older rev is ignored.", _sync_draft("4.4.3")),
    Rule("resync", "After a gap, a `#sync` brings the account back.", SYNC),
    # Verification
    Rule("identity-known", "An account has a DID document with a signing key and a PDS.", SYNC),
    Rule("authority", "Only the PDS of an account speaks for it.", SYNC),
    Rule("inactive", "Nothing of an account that is not active passes.", f"{ACCOUNT}#account-status"),
    Rule("signature", "Commits are signed with the account's current key.", REPOSITORY),
    Rule("key-rotation", "After an invalid signature the key is read again.", SYNC),
    Rule("directory-away", "While the directory is away, nothing passes that cannot be verified.", SYNC),
    Rule("low-s", "Signatures have the low S; both curves are allowed.", CRYPTOGRAPHY),
    Rule("key-forms", "Multikey and the older forms of keys; others are not keys.", DID),
    Rule("did-methods", "did:plc and did:web of a whole host; no others.", DID),
    Rule("event-equals-commit", "The event says what the signed commit says.", SYNC),
    Rule("commit-object", "Commit objects are version 3; `prev` may be a link.", f"{REPOSITORY}#commit-objects"),
    Rule("rev-rises", "An account's rev rises; what does not is ignored.", SYNC),
    Rule("rev-future", "A rev is not more than a few minutes ahead.", SYNC),
    Rule("inversion", "Taking the operations back gives `prevData`.", SYNC),
    Rule("records-come-along", "Records that were written are there, with the operation's CID.", SYNC),
    Rule("tree", "Trees keep the rules of the MST.", f"{REPOSITORY}#mst-structure"),
    Rule("records-opaque", "The contents of a record are not judged, only that it is a map.", _repository_draft("3.3")),
    Rule("car", "Blocks may be in any order, twice, or unrelated; their hashes are right.", _repository_draft("5.3")),
    Rule("paths", "Paths are `collection/rkey`.", REPOSITORY),
    Rule("cids", "Links are CIDv1 with sha-256.", DATA),
    # Accounts
    Rule("identity-event", "`#identity` passes and has the identity read again.", SYNC),
    Rule("account-event", "`#account` passes; unknown words are kept, and `active` decides.", _sync_draft("2.1")),
    Rule("status-here", "`#account` states the status at this relay.", _sync_draft("2.2")),
    Rule(
        "status-learned",
        "A status that the relay learns in another way is announced by `#account`.",
        _sync_draft("2.2"),
    ),
    Rule("hidden", "What is taken down or deleted is no longer sent, not even in replay.", ACCOUNT),
    Rule("order", "Events of one account stay in order, and no account waits for another.", SYNC),
    # The firehose
    Rule("messages", "Messages are a header and a map; an error has no `t`.", FRAMING),
    Rule("seq", "`seq` is 1 to 2^53-1, rises, and is not used twice.", SEQUENCE),
    Rule("live", "Without a cursor, only what comes from then on.", SEQUENCE),
    Rule("cursor", "With a cursor, all events after it, in order; 0 is the whole window.", SEQUENCE),
    Rule("cursor-future", "A cursor ahead is `FutureCursor`, and the end.", SEQUENCE),
    Rule("client-frames", "What a client sends is ignored.", EVENTS),
    Rule("handshake", "Methods other than GET are 405, and 426 without an upgrade; a bad cursor is refused.", EVENTS),
    # Queries
    Rule("xrpc-errors", "Errors are XRPC's: 400 `InvalidRequest`, 501 `MethodNotImplemented`.", XRPC),
    Rule("list-hosts", "`listHosts` pages through hosts; lists are never null.", SYNC),
    Rule("host-status", "`getHostStatus`, with `HostNotFound`.", SYNC),
    Rule("list-repos", "`listRepos` pages through accounts with their rev and head.", SYNC),
    Rule("repo-status", "`getRepoStatus`, with `RepoNotFound`.", SYNC),
    Rule("latest-commit", "`getLatestCommit` gives the newest commit, but not that of an inactive account.", SYNC),
    Rule("by-collection", "`listReposByCollection` knows who has records of a collection.", SYNC),
    Rule("request-crawl", "`requestCrawl` takes hosts, and refuses what is not a host.", SYNC),
    Rule("cors", "Queries are open to web pages; no credentials are asked for.", XRPC),
    Rule("user-agent", "The relay says who it is when it connects.", XRPC),
)

RULES = {rule.name: rule for rule in _ALL}
