"""The `com.atproto.sync.*` queries, and requestCrawl, as the lexicons and the reference relay define them.

Each reads SQL by key and answers in milliseconds at a million accounts. Lists page by row id, and may be half a second
behind the firehose; what is said of one account is not. Must not know of the event path.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from relay.admin.actions import Actor
from relay.atproto.events import effective_status
from relay.kit.errors import CrawlRefused
from relay.store import accounts, collections, hosts
from relay.store.accounts import AccountAndRepo
from relay.store.hosts import HostRow
from relay.web import params
from relay.web.current_request import actor, crawl_for_public
from relay.web.errors import XrpcError
from relay.web.services import PREFIX, relay_services

blueprint = Blueprint("xrpc", __name__)

# The lexicons' names for what is not there because of the account's status; of any other it is not found.
_INACTIVE_NAMES = {
    "takendown": "RepoTakendown",
    "suspended": "RepoSuspended",
    "deactivated": "RepoDeactivated",
}
# With these the account's own host still has the repo, and may give it.
_SERVED_BY_HOST = frozenset({"active", "desynchronized", "host-throttled"})
# What is called otherwise elsewhere: the lexicon has one name for both bans, and XRPC one for what cannot be read.
_CRAWL_NAMES = {"DomainBan": "HostBanned", "BadRequest": "InvalidRequest"}


@blueprint.get(f"{PREFIX}listHosts")
def list_hosts() -> ResponseReturnValue:
    """`limit`, `cursor`: hosts that sent events, by the time they were first seen."""
    limit = params.limit(request.args, default=200, maximum=1000)
    rows = relay_services().db.read(hosts.list_hosts, params.cursor(request.args), limit)
    return page("hosts", [_host_view(row) for row in rows], rows[-1].id if len(rows) == limit else None)


@blueprint.get(f"{PREFIX}getHostStatus")
def get_host_status() -> ResponseReturnValue:
    """`hostname`: one host's seq, status and account count."""
    hostname = params.hostname(params.required(request.args, "hostname"))
    row = relay_services().db.read(hosts.by_hostname, hostname)
    if row is None:
        raise XrpcError(404, "HostNotFound", "no such host is known here")
    return jsonify(_host_view(row))


@blueprint.get(f"{PREFIX}listRepos")
def list_repos() -> ResponseReturnValue:
    """`limit`, `cursor`: active accounts with their repo's head and rev."""
    limit = params.limit(request.args, default=500, maximum=1000)
    found = relay_services().db.read(accounts.list_repos, params.cursor(request.args), limit)
    repos = [{"did": row.did, "head": row.head, "rev": row.rev, "active": True} for row in found.repos]
    return page("repos", repos, found.next_uid)


@blueprint.get(f"{PREFIX}listReposByCollection")
def list_repos_by_collection() -> ResponseReturnValue:
    """`collection`, `limit`, `cursor`: active accounts with records of a collection."""
    nsid = params.nsid(params.required(request.args, "collection"), "collection")
    limit = params.limit(request.args, default=500, maximum=2000)
    found = relay_services().db.read(collections.list_repos, nsid, params.cursor(request.args), limit)
    return page("repos", [{"did": did} for _, did in found.repos], found.next_uid)


@blueprint.get(f"{PREFIX}getRepoStatus")
def get_repo_status() -> ResponseReturnValue:
    """`did`: the account's status at this relay, and its rev when it is active."""
    account, repo = _known_account()
    active, status = effective_status(account.status, account.upstream_status)
    view: dict[str, Any] = {"did": account.did, "active": active}
    if status is not None:
        view["status"] = status
    if active and repo is not None:
        view["rev"] = repo.rev
        if repo.desynchronized:
            # Events still pass; a consumer that fetches the repo learns that this relay missed some.
            view["status"] = "desynchronized"
    return jsonify(view)


@blueprint.get(f"{PREFIX}getLatestCommit")
def get_latest_commit() -> ResponseReturnValue:
    """`did`: the newest commit of an active account."""
    account, repo = _known_account()
    active, status = effective_status(account.status, account.upstream_status)
    if not active:
        raise _not_given(status)
    if repo is None:
        raise XrpcError(404, "RepoNotFound", "no commit of this account has been seen yet")
    return jsonify(cid=str(repo.commit), rev=repo.rev)


@blueprint.get(f"{PREFIX}getRepo")
def get_repo() -> ResponseReturnValue:
    """`did`: a redirect to the account's PDS with the same query; a relay holds no repos."""
    account, _ = _known_account()
    if account.status not in _SERVED_BY_HOST:
        raise _not_given(account.status)
    host = relay_services().db.read(hosts.by_id, account.host_id)
    if host is None:
        raise XrpcError(404, "RepoNotFound", "no host of this account is known here")
    scheme = "http" if host.no_ssl else "https"
    query = request.query_string.decode("latin-1")
    return redirect(f"{scheme}://{host.hostname}{request.path}?{query}")


@blueprint.post(f"{PREFIX}requestCrawl")
def request_crawl() -> ResponseReturnValue:
    """`{"hostname"}`: subscribe to a host that asks for it."""
    crawl_for_anybody(actor(), params.json_body(request.get_data()))
    return Response(status=200)


def crawl_for_anybody(actor: Actor, body: params.Body) -> str:
    """What requestCrawl and its forms do. Returns the hostname. Raises XrpcError with the lexicon's names."""
    hostname = params.body_text(body, "hostname")
    try:
        crawl_for_public(actor, hostname)
    except CrawlRefused as refused:
        name = _CRAWL_NAMES.get(refused.name, refused.name)
        raise XrpcError(refused.status, name, refused.detail) from None
    return hostname


def page(name: str, items: list[dict[str, Any]], last_key: int | None) -> Response:
    """A list and the cursor to its next page, which the last page lacks."""
    return jsonify({name: items} if last_key is None else {name: items, "cursor": str(last_key)})


def _known_account() -> AccountAndRepo:
    did = params.did(params.required(request.args, "did"))
    found = relay_services().find_account(did)
    if found is None:
        raise XrpcError(404, "RepoNotFound", "no event of this account has been seen here")
    return found


def _not_given(status: str | None) -> XrpcError:
    name = _INACTIVE_NAMES.get(status or "")
    return XrpcError(403 if name else 404, name or "RepoNotFound", f"the account is {status} here")


def _host_view(row: HostRow) -> dict[str, Any]:
    return {
        "hostname": row.hostname,
        "seq": max(0, row.last_seq),
        "status": row.status,
        "accountCount": row.account_count,
    }
