"""The pages that show something: overview, hosts, crawling, accounts, consumers.

Each reads what the relay has in memory, a page of it at a time; SQL only where lists are kept nowhere else. Must not
change anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue

from relay.atproto.events import effective_status
from relay.atproto.syntax import is_handle
from relay.dash.access import state
from relay.dash.past import RANGES
from relay.dash.rendering import Paging, chosen, linker, page
from relay.hosts.search import ALL, SORTS, STATES, HostQuery
from relay.kit import metrics
from relay.kit.background import in_turns
from relay.kit.own_process import resident_bytes
from relay.store import accounts, host_healing, hosts
from relay.store.accounts import AccountRow, RepoRow
from relay.store.hosts import HostRow
from relay.web import params
from relay.web.account_page import plain_name, report_view
from relay.web.consumers import Consumer
from relay.web.services import relay_services

HOSTS_PER_PAGE = 50
CONSUMERS_PER_PAGE = 100
TAKEDOWNS_PER_PAGE = 100
BANS_PER_PAGE = 100
MAX_SEARCH = 200

CONSUMER_SORTS = {
    "address": lambda one: one.remote_address,
    "agent": lambda one: one.user_agent,
    "since": lambda one: one.connected_at,
    "events": lambda one: one.events_consumed,
    "lag": lambda one: -one.position,
}
STARTED = time.time()


def overview() -> ResponseReturnValue:
    """`range`: the dashboard for people, behind a login: charts, latencies, drops, the log's window."""
    here = relay_services()
    shown = {"range": chosen("range", tuple(RANGES), "1h")}
    window = here.firehose.window()
    positions = [consumer.position for consumer in here.consumers]
    return page(
        "overview.html",
        history=state().history,
        charts=state().charts.of(shown["range"]),
        ranges=RANGES,
        query=shown,
        link=linker("dash.overview", shown, {"range": "1h"}),
        hosts=here.hosts.search(HostQuery(count=0)).by_state,
        consumers=len(positions),
        worst_lag=window.last_seq - min(positions) if positions else 0,
        window=window,
        log_bytes=metrics.total(metrics.LOG_BYTES),
        behind=metrics.total(metrics.PROJECTION_LAG),
        memory=resident_bytes(),
        cpu_seconds=time.process_time(),
        started=STARTED,
        cluster=f"node {here.node} is active" if here.node else "",
    )


def host_list() -> ResponseReturnValue:
    """`search`, `state`, `sort`, `order`, `page`: the hosts."""
    paging = Paging.asked(HOSTS_PER_PAGE)
    query = HostQuery(
        search=request.args.get("search", "").strip()[:MAX_SEARCH],
        state=chosen("state", STATES, ALL),
        sort=chosen("sort", SORTS, "name"),
        descending=chosen("order", ("asc", "desc"), "asc") == "desc",
        start=paging.start,
        count=paging.size,
    )
    shown = _shown(query.sort, query.descending, paging) | {"search": query.search, "state": query.state}
    defaults = {"search": "", "state": ALL, "sort": "name", "order": "asc", "page": 1}
    found = relay_services().hosts.search(query)
    return page(
        "hosts.html",
        reports=found.rows,
        by_state=found.by_state,
        states=STATES,
        paging=replace(paging, found=found.found),
        query=shown,
        link=linker("dash.host_list", shown, defaults),
    )


def host_detail(hostname: str) -> ResponseReturnValue:
    """One host: its state and what to do about it, its limits, its drops, what was missed."""
    report = relay_services().hosts.report(hostname)
    heal = relay_services().db.read(host_healing.progress, report.host.id)
    return page("host.html", report=report, host=report.host, row=report.host.row, heal=heal)


def crawling() -> ResponseReturnValue:
    """`search`, `page`, of banned domains: how hosts come in, crawl requests, their limit, what is banned."""
    new_hosts = relay_services().hosts.new_hosts
    paging = Paging.asked(BANS_PER_PAGE)
    search = request.args.get("search", "").strip().lower()[:MAX_SEARCH]
    found = [domain for domain in in_turns(hosts.each_ban(relay_services().db)) if search in domain.lower()]
    return page(
        "crawling.html",
        enabled=new_hosts.crawl_enabled,
        new_hosts_per_day=new_hosts.per_day,
        domains=found[paging.start : paging.start + paging.size],
        search=search,
        paging=replace(paging, found=len(found)),
        link=linker("dash.crawling", {"search": search, "page": paging.page}, {"search": "", "page": 1}),
    )


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as the pages show it."""

    account: AccountRow
    repo: RepoRow | None
    host: HostRow | None
    active: bool
    status: str | None


def account_view(did: str) -> AccountView | None:
    """What is known of an account, None when nothing is. Raises XrpcError when `did` is not a DID, StoreError."""
    found = relay_services().find_account(params.did(did))
    if found is None:
        return None
    account, repo = found
    active, status = effective_status(account.status, account.upstream_status)
    return AccountView(account, repo, relay_services().db.read(hosts.by_id, account.host_id), active, status)


def account_list() -> ResponseReturnValue:
    """`did`, `cursor`: an account, by its DID or handle, and all that are taken down here."""
    text = params.optional(request.args, "did")
    did = "" if text is None else plain_name(text)
    if is_handle(did.lower()):
        return redirect(url_for("dash.account_why", name=did), 303)
    rows = relay_services().db.read(accounts.takedowns, params.cursor(request.args), TAKEDOWNS_PER_PAGE)
    return page(
        "accounts.html",
        did=did,
        view=account_view(did) if did else None,
        takedowns=[taken for _, taken in rows],
        next=rows[-1][0] if len(rows) == TAKEDOWNS_PER_PAGE else None,
    )


def account_why() -> ResponseReturnValue:
    """`name`: why an account, by its DID or handle, is or is not in the stream: asks its PDS, which takes seconds."""
    name = plain_name(params.required(request.args, "name"))
    made_at, report = relay_services().account_answers.of(name, None)
    return page("why.html", view=report_view(made_at, report))


def consumer_list() -> ResponseReturnValue:
    """`sort`, `order`, `page`: the consumers of the firehose, the slowest first."""
    paging = Paging.asked(CONSUMERS_PER_PAGE)
    sort = chosen("sort", tuple(CONSUMER_SORTS), "lag")
    descending = chosen("order", ("asc", "desc"), "desc") == "desc"
    found: list[Consumer] = sorted(relay_services().consumers, key=CONSUMER_SORTS[sort], reverse=descending)
    shown = _shown(sort, descending, paging)
    return page(
        "consumers.html",
        consumers=found[paging.start : paging.start + paging.size],
        last_seq=relay_services().firehose.last_seq,
        paging=replace(paging, found=len(found)),
        query=shown,
        link=linker("dash.consumer_list", shown, {"sort": "lag", "order": "desc", "page": 1}),
    )


def _shown(sort: str, descending: bool, paging: Paging) -> dict[str, Any]:
    return {"sort": sort, "order": "desc" if descending else "asc", "page": paging.page}
