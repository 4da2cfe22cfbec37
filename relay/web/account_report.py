"""Why an account is, or is not, in this relay's stream: what the network and the relay say of it, and what follows.

One service behind the page, its JSON and `relay accounts why`. `judge` is pure: it takes what was found and says in
one sentence what is the matter, and in another who can do what. A takedown is told as not being served, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from relay.atproto.events import SERVED
from relay.atproto.hostname import Endpoint
from relay.atproto.syntax import is_account_did, is_handle
from relay.hosts.hosts import Hosts
from relay.hosts.lifecycle import Status
from relay.hosts.rejected import RejectedFrame
from relay.hosts.report import HostReport
from relay.kit.errors import HostUnknown, IdentityError
from relay.store.accounts import AccountAndRepo, RepoRow
from relay.web.account_network import AccountNetwork, AtPds
from relay.web.errors import invalid

MAX_REJECTED = 5

FindAccount = Callable[[str], AccountAndRepo | None]


class Finding(NamedTuple):
    """What is the matter: `cause` is a stable word, `summary` and `advice` a sentence each."""

    cause: str
    summary: str
    advice: str


class AccountReport(NamedTuple):
    """All that is said of an account. `name` is what was asked for; what is not known is None."""

    name: str
    did: str | None
    handle: str | None
    pds: Endpoint | None
    finding: Finding
    here: AccountAndRepo | None
    there: AtPds | None
    host: HostReport | None
    rejected: list[RejectedFrame]
    can_crawl: bool


_IDENTITY = {
    "did-not-found": (
        "The DID does not exist.",
        "Check how it is written; a new account's DID has to be registered first.",
    ),
    "did-tombstone": ("The DID was deleted for good.", "The account cannot come back."),
    "did-document": ("The DID's document cannot be used.", "Whoever manages the DID has to correct its document."),
    "did-unavailable": (
        "The DID's document cannot be fetched now.",
        "Try again later: its directory or host does not answer.",
    ),
}
_WAIT = "Nothing needs to be done: the next event of the account brings it here."
_NOT_SERVED = Finding(
    "not-served", "The account is not served by this relay.", "Only the relay's operator can say more."
)


class AccountReports:
    """Finds out and judges. Blocks for as long as the network takes, at most half a minute."""

    def __init__(self, network: AccountNetwork, hosts: Hosts, find_account: FindAccount) -> None:
        self._network = network
        self._hosts = hosts
        self._find_account = find_account

    def report(self, name: str) -> AccountReport:
        """Of the account that a DID or handle names. Raises XrpcError 400 when it is neither, StoreError."""
        if is_account_did(name):
            return self._report(name, name, None)
        handle = name.lower()
        if not is_handle(handle):
            raise invalid("that is neither a DID nor a handle")
        did, words = self._network.did_of(handle)
        if did is None:
            finding = Finding(
                "handle-unresolved",
                f"The handle names no account: {words}.",
                "Its owner has to set the TXT record, or the file, that names the account's DID.",
            )
            return AccountReport(name, None, handle, None, finding, None, None, None, [], False)
        return self._report(name, did, handle)

    def _report(self, name: str, did: str, handle: str | None) -> AccountReport:
        here = self._find_account(did)
        blank = AccountReport(name, did, handle, None, _NOT_SERVED, None, None, None, [], False)
        if here is not None and here[0].status == "takendown":
            return blank
        try:
            known = self._network.ask_did(did)
        except IdentityError as error:
            summary, advice = _IDENTITY[error.reason]
            return blank._replace(finding=Finding(error.reason, summary, advice), here=here)
        blank = blank._replace(handle=handle or known.handle, pds=known.pds, here=here)
        if known.pds is None:
            finding = Finding(
                "no-pds", "The account's document names no PDS.", "Its owner has to name the PDS in the DID document."
            )
            return blank._replace(finding=finding)
        there = self._network.at_pds(known.pds, did)
        host = self._host(known.pds)
        rejected = [frame for frame in host.rejected if frame.did == did][:MAX_REJECTED] if host else []
        if handle is not None and known.handle != handle:
            finding = Finding(
                "handle-mismatch",
                f"The handle names this account, but the account calls itself {known.handle or 'by no handle'}.",
                "Its owner has to set the handle at the PDS too. Its events pass in spite of that.",
            )
        else:
            finding = judge(
                known.pds, has_key=known.key is not None, here=here, there=there, host=host, rejected=rejected
            )
        can_crawl = host is None or (not host.host.connected and host.host.status is not Status.BANNED)
        return blank._replace(there=there, host=host, rejected=rejected, finding=finding, can_crawl=can_crawl)

    def _host(self, pds: Endpoint) -> HostReport | None:
        try:
            return self._hosts.report(pds.hostname)
        except HostUnknown:
            return None


def judge(
    pds: Endpoint,
    *,
    has_key: bool,
    here: AccountAndRepo | None,
    there: AtPds,
    host: HostReport | None,
    rejected: list[RejectedFrame],
) -> Finding:
    """The most pressing thing of an account that is not taken down here."""
    if not has_key:
        return Finding(
            "no-signing-key",
            "The account's document has no signing key.",
            "Its owner has to set the key in the DID document; without one nothing can be verified.",
        )
    if there.failure is None and not there.active:
        return Finding(
            "inactive-at-pds",
            f"The account is not active at its PDS, which calls it {there.status or 'inactive'}.",
            "Its owner can activate it there, or ask the operator of the PDS.",
        )
    if there.lacks_account:
        return Finding(
            "not-at-pds",
            f"{pds.hostname}, which the account's document names as its PDS, does not have the account.",
            "It was deleted there, or has not moved there yet. Its DID document has to name the PDS that has it.",
        )
    return _of_host(pds, host, here) or _of_account(pds, here, there, host, rejected)


def _of_host(pds: Endpoint, host: HostReport | None, here: AccountAndRepo | None) -> Finding | None:
    """What is the matter with the account's PDS, if something is."""
    if host is None:
        return Finding(
            "host-unknown",
            f"This relay does not know the account's PDS, {pds.hostname}.",
            "Anybody may request a crawl; then new events of the account arrive here.",
        )
    if host.host.status is Status.BANNED:
        return Finding("host-blocked", f"The account's PDS, {pds.hostname}, is blocked here.", host.advice)
    full = host.host.account_count >= host.host.account_limit
    if (here is None and full) or (here is not None and here[0].status == "host-throttled"):
        return Finding(
            "account-limit",
            f"{pds.hostname} was at its limit of {host.host.account_limit} accounts when this one came.",
            "The operator of the PDS can ask this relay's operator for more.",
        )
    if not host.host.connected:
        return Finding(
            "host-not-connected", f"This relay is not connected to the account's PDS, {pds.hostname}.", host.advice
        )
    return None


def _of_account(
    pds: Endpoint,
    here: AccountAndRepo | None,
    there: AtPds,
    host: HostReport | None,
    rejected: list[RejectedFrame],
) -> Finding:
    if here is None:
        return Finding(
            "never-seen", "No event of this account has arrived here yet.", _rejected_advice(rejected) or _WAIT
        )
    row, repo = here
    assert host is not None
    if row.host_id != host.host.id:
        return Finding(
            "moved", f"The account has moved to {pds.hostname}, and nothing has arrived from there yet.", _WAIT
        )
    if any(frame.reason == "account-throttled" for frame in rejected):
        return Finding(
            "throttled",
            "The account sends more than can be taken at once, and some of its events were dropped.",
            "It is throttled until it sends less; consumers are told when that is over.",
        )
    if row.upstream_status not in SERVED:
        return Finding(
            "status-outdated", f"This relay still has the account as {row.upstream_status}, which it was.", _WAIT
        )
    if there.failure is not None:
        return Finding(
            "pds-silent",
            f"The account's PDS does not answer for the account: {there.failure}.",
            "The operator of the PDS can check that it answers getRepoStatus.",
        )
    return _of_revs(repo, there, rejected)


def _of_revs(repo: RepoRow | None, there: AtPds, rejected: list[RejectedFrame]) -> Finding:
    rev = repo.rev if repo is not None else None
    if there.rev is not None and (rev is None or there.rev > rev):
        return Finding(
            "behind",
            f"This relay is behind: it has the rev {rev or 'none'}, the PDS has {there.rev}.",
            _rejected_advice(rejected) or _WAIT,
        )
    if there.rev is not None and rev is not None and there.rev < rev:
        return Finding(
            "pds-behind",
            f"The PDS is behind this relay: it has the rev {there.rev}, the relay has {rev}.",
            "It may have been restored from a backup; events pass again once its revs are newer than the relay's.",
        )
    if repo is not None and repo.desynchronized:
        return Finding(
            "desynchronized", "Events of the account are missing here.", "Consumers fetch the repository from its PDS."
        )
    return Finding(
        "in-step", "The account's events pass, and this relay has its newest commit.", "Nothing needs to be done."
    )


def _rejected_advice(rejected: list[RejectedFrame]) -> str | None:
    if not rejected:
        return None
    return "Its last events were rejected, for the reasons below. The software of its PDS has to be corrected."
