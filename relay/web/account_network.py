"""What the network says of an account now: which DID its handle names, who that is, and what its PDS has of it.

Called by `account_report` for one account at a time, past all caches: the question is what is the matter now. All that
is contacted is chosen by strangers, so it goes through the guarded client, with a timeout each. Must not know what this
relay has of the account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from relay.atproto.crypto import PublicKey
from relay.atproto.hostname import Endpoint
from relay.atproto.syntax import is_account_did, is_tid
from relay.hosts.report import public_error
from relay.kit.errors import AddressRefused, HttpError
from relay.net.dns_text import text_records
from relay.net.http import GuardedHttp, xrpc_url

HANDLE_SECONDS = 4.0
PDS_SECONDS = 5.0
MAX_HANDLE_ANSWER = 4096
PREFIX = "did="


class Known(Protocol):
    """Who a DID is, as its document says."""

    @property
    def pds(self) -> Endpoint | None:
        """Its host."""

    @property
    def key(self) -> PublicKey | None:
        """Its signing key."""

    @property
    def handle(self) -> str | None:
        """What the document calls it, not proven."""


# Asks the network who a DID is. Raises IdentityError.
AskDid = Callable[[str], Known]


class AtPds(NamedTuple):
    """What an account's PDS says of it. With a `failure`, in words, it could not be asked: the rest means nothing."""

    active: bool
    status: str | None
    rev: str | None
    failure: str | None

    @property
    def lacks_account(self) -> bool:
        """Whether the PDS has answered that the account is not there."""
        return self.failure is not None and self.failure.endswith(" RepoNotFound")


class AccountNetwork:
    """Asks name servers, web servers and PDSs."""

    def __init__(
        self, http: GuardedHttp, ask_did: AskDid, texts: Callable[[str, float], list[str]] = text_records
    ) -> None:
        self.ask_did = ask_did
        self._http = http
        self._texts = texts

    def did_of(self, handle: str) -> tuple[str | None, str]:
        """The DID that a handle names, by DNS or by its web server; else None and in words what was found."""
        try:
            texts = self._texts(f"_atproto.{handle}", HANDLE_SECONDS)
            named = {text.removeprefix(PREFIX) for text in texts if text.startswith(PREFIX)}
            dns = "there is no TXT record at _atproto." + handle
        except AddressRefused as error:
            named, dns = set(), _words(error)
        if len(named) > 1:
            return None, f"there are several TXT records at _atproto.{handle}"
        if named:
            did = named.pop()
            return (did, "") if is_account_did(did) else (None, f"the TXT record at _atproto.{handle} is not a DID")
        found, web = self._did_at_web_server(handle)
        return found, f"{dns}; {web}"

    def at_pds(self, pds: Endpoint, did: str) -> AtPds:
        """What the PDS says of an account when it is asked by getRepoStatus."""
        url = xrpc_url(pds.url, "com.atproto.sync.getRepoStatus", {"did": did})
        try:
            answer = self._http.get(url, timeout=PDS_SECONDS)
        except (HttpError, AddressRefused) as error:
            return AtPds(False, None, None, _words(error))
        said = answer.json_object() or {}
        if answer.status != 200 or not isinstance(said.get("active"), bool):
            name = said.get("error")
            # JSON has characters that no page can: halves of a pair, for one.
            shown = name[:80] if isinstance(name, str) and name[:80].isprintable() else ""
            words = f"HTTP {answer.status} {shown}".rstrip()
            return AtPds(False, None, None, words)
        status, rev = said.get("status"), said.get("rev")
        return AtPds(
            said["active"],
            status[:64] if isinstance(status, str) and status.isprintable() else None,
            rev if isinstance(rev, str) and is_tid(rev) else None,
            None,
        )

    def _did_at_web_server(self, handle: str) -> tuple[str | None, str]:
        url = f"https://{handle}/.well-known/atproto-did"
        try:
            answer = self._http.get(url, timeout=HANDLE_SECONDS, max_bytes=MAX_HANDLE_ANSWER)
        except (HttpError, AddressRefused) as error:
            return None, _words(error)
        did = answer.body.decode("utf-8", "replace").strip()
        if answer.status != 200 or not is_account_did(did):
            return None, f"{url} does not answer with a DID"
        return did, ""


def _words(error: HttpError | AddressRefused) -> str:
    """An error as anybody may read it."""
    return public_error(str(error))
