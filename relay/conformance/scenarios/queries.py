"""The queries of `com.atproto.sync`, and requestCrawl."""

from __future__ import annotations

from typing import Any

from relay.conformance.repository import POSTS
from relay.conformance.scenario import must, must_not
from relay.conformance.scenarios.accounts import tells
from relay.conformance.stage import Stage, new_did
from relay.conformance.subject import SYNC, Answer
from relay.conformance.verdict import Broken, NotOffered

MAX_PAGES = 2_000


def offered(answer: Answer, method: str) -> Answer:
    """The answer, unless the relay does not know the method."""
    error = answer.value.get("error") if isinstance(answer.value, dict) else None
    if (
        answer.status == 501
        or error == "MethodNotImplemented"
        or (answer.status == 404 and error in (None, "NotFound", "Not Found"))
    ):
        raise NotOffered(f"{method} is answered by HTTP {answer.status}")
    return answer


def value_of(stage: Stage, method: str, **query: object) -> dict[str, Any]:
    """The JSON of a query that has to succeed."""
    answer = offered(stage.relay.get(method, **query), method)
    if answer.status != 200 or not isinstance(answer.value, dict):
        raise Broken(f"{method} is answered by HTTP {answer.status}: {answer.value}")
    return answer.value


def refused(stage: Stage, method: str, status: int | tuple[int, ...], error: str, **query: object) -> None:
    """Broken unless the query is refused in these words."""
    answer = offered(stage.relay.get(method, **query), method)
    statuses = status if isinstance(status, tuple) else (status,)
    said = answer.value.get("error") if isinstance(answer.value, dict) else None
    if answer.status not in statuses or said != error:
        raise Broken(f"{method} with {query} is answered by HTTP {answer.status} {said}, not {statuses[0]} {error}")


def all_pages(stage: Stage, method: str, name: str, limit: int, **query: object) -> list[dict[str, Any]]:
    """What a list has, page by page to its end."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        page = value_of(stage, method, limit=limit, **cursor, **query)
        found = page.get(name)
        if not isinstance(found, list):
            raise Broken(f"{method} has {name}: {found}")
        items += found
        if "cursor" not in page:
            return items
        if not isinstance(page["cursor"], str) or not found:
            raise Broken(f"{method} has the cursor {page['cursor']!r} with {len(found)} items")
        cursor = {"cursor": page["cursor"]}
    raise Broken(f"{method} has no end")


@must("xrpc-errors")
def an_unknown_method_is_not_implemented(stage: Stage) -> None:
    answer = stage.relay.get("getWeather")
    if (
        answer.status != 501
        or not isinstance(answer.value, dict)
        or answer.value.get("error") != "MethodNotImplemented"
    ):
        raise Broken(f"an unknown method is answered by HTTP {answer.status}: {answer.value}")


@must_not("xrpc-errors")
def parameters_out_of_range_are_served(stage: Stage) -> None:
    for limit in (0, 1001, "abc"):
        refused(stage, "listRepos", 400, "InvalidRequest", limit=limit)


@must_not("xrpc-errors")
def a_did_that_is_not_one_is_served(stage: Stage) -> None:
    refused(stage, "getRepoStatus", 400, "InvalidRequest", did="not-a-did")


@must("list-hosts")
def hosts_are_listed_page_by_page(stage: Stage) -> None:
    account = stage.account()

    def listed() -> bool:
        names = [host.get("hostname") for host in all_pages(stage, "listHosts", "hosts", 1)]
        if len(names) != len(set(names)):
            raise Broken("listHosts has a host twice")
        return account.host.hostname in names

    stage.wait_for(listed, "listHosts with limit=1 comes to a host that sends")


@must_not("list-hosts")
def a_page_of_more_than_1000_hosts_is_served(stage: Stage) -> None:
    if offered(stage.relay.get("listHosts", limit=1001), "listHosts").status == 200:
        raise Broken("listHosts takes limit=1001")


@must("host-status")
def a_host_has_a_status(stage: Stage) -> None:
    account = stage.account()
    status = value_of(stage, "getHostStatus", hostname=account.host.hostname)
    if status.get("hostname") != account.host.hostname or status.get("status") not in ("active", "idle"):
        raise Broken(f"getHostStatus says {status}")


@must_not("host-status")
def a_host_that_is_not_known_has_a_status(stage: Stage) -> None:
    refused(stage, "getHostStatus", (400, 404), "HostNotFound", hostname="nowhere.example.com")


@must("list-repos")
def accounts_are_listed_with_their_rev(stage: Stage) -> None:
    account = stage.account()
    expected = {"did": account.did, "head": str(account.repo.head), "rev": account.repo.rev, "active": True}

    def listed() -> bool:
        return any(expected.items() <= repo.items() for repo in all_pages(stage, "listRepos", "repos", 500))

    stage.wait_for(listed, "listRepos has an account with its head and rev")


@must_not("list-repos")
def a_page_of_listed_accounts_has_more_than_its_limit(stage: Stage) -> None:
    stage.account()
    page = value_of(stage, "listRepos", limit=2)
    if len(page["repos"]) > 2:
        raise Broken(f"limit=2 gives {len(page['repos'])}")
    if len(page["repos"]) == 2 and "cursor" not in page:
        raise Broken("listRepos with limit=2 has no cursor, although there is more")


@must("repo-status")
def an_account_has_a_status(stage: Stage) -> None:
    account = stage.account()
    status = value_of(stage, "getRepoStatus", did=account.did)
    if {"did": account.did, "active": True, "rev": account.repo.rev}.items() - status.items():
        raise Broken(f"getRepoStatus says {status}")


@must("repo-status")
def a_deactivated_account_is_said_to_be_so(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")

    def said() -> bool:
        status = value_of(stage, "getRepoStatus", did=account.did)
        return status.get("active") is False and status.get("status") == "deactivated"

    stage.wait_for(said, "getRepoStatus says that an account is deactivated")


@must_not("repo-status")
def an_account_that_is_not_known_has_a_status(stage: Stage) -> None:
    refused(stage, "getRepoStatus", (400, 404), "RepoNotFound", did=new_did())


@must("latest-commit")
def the_latest_commit_is_the_newest(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create()))
    expected = {"cid": str(account.repo.head), "rev": account.repo.rev}
    stage.wait_for(
        lambda: value_of(stage, "getLatestCommit", did=account.did) == expected, "getLatestCommit has the newest"
    )


@must_not("latest-commit")
def a_deactivated_account_has_a_latest_commit(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")
    refused(stage, "getLatestCommit", (400, 403), "RepoDeactivated", did=account.did)


@must_not("latest-commit")
def an_account_that_is_not_known_has_a_latest_commit(stage: Stage) -> None:
    refused(stage, "getLatestCommit", (400, 404), "RepoNotFound", did=new_did())


@must("by-collection")
def who_has_records_of_a_collection_is_known(stage: Stage) -> None:
    collection = "com.example.conformance.thing"
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create({"$type": collection}, collection)))

    def listed() -> bool:
        repos = all_pages(stage, "listReposByCollection", "repos", 500, collection=collection)
        return {"did": account.did} in repos

    stage.wait_for(listed, "listReposByCollection has an account that wrote such a record")


@must_not("by-collection")
def who_has_no_record_of_a_collection_is_listed(stage: Stage) -> None:
    account = stage.account()
    repos = all_pages(stage, "listReposByCollection", "repos", 500, collection="com.example.nobody.has")
    if {"did": account.did} in repos:
        raise Broken("an account is listed under a collection that it does not have")
    refused(stage, "listReposByCollection", 400, "InvalidRequest", collection=f"{POSTS}/not-an-nsid")


@must("request-crawl")
def a_host_that_is_followed_already_may_ask(stage: Stage) -> None:
    answer = stage.relay.post("requestCrawl", {"hostname": stage.hosts[0].url})
    if answer.status in (400, 403):
        raise NotOffered(f"the public may not ask for a host on loopback: {answer.value}")
    if answer.status != 200:
        raise Broken(f"requestCrawl of a host that is followed is answered by HTTP {answer.status}: {answer.value}")


@must_not("request-crawl")
def what_is_not_a_hostname_is_crawled(stage: Stage) -> None:
    for hostname in ("", "not a hostname", "http://", 5):
        answer = offered(stage.relay.post("requestCrawl", {"hostname": hostname}), "requestCrawl")
        if answer.status != 400:
            raise Broken(f"requestCrawl of {hostname!r} is answered by HTTP {answer.status}")


@must_not("request-crawl")
def a_host_of_a_banned_domain_is_crawled(stage: Stage) -> None:
    if not stage.relay.password:
        raise NotOffered("needs the admin's password")
    banned = stage.relay.admin("subs/banDomain", {"Domain": "banned.example"})
    if banned.status != 200:
        raise NotOffered(f"bans are answered by HTTP {banned.status}")
    answer = stage.relay.post("requestCrawl", {"hostname": "https://pds.banned.example"})
    if answer.status == 200:
        raise Broken("a host of a banned domain is crawled")


@must("cors")
def queries_are_open_to_web_pages(stage: Stage) -> None:
    origin = "https://web.example"
    answer = stage.relay.request("GET", f"{SYNC}listHosts", origin=origin)
    if answer.headers.get("access-control-allow-origin") not in ("*", origin):
        raise Broken("queries do not allow every origin")


@must_not("cors")
def a_query_asks_for_credentials(stage: Stage) -> None:
    for method in ("listHosts", "listRepos"):
        if stage.relay.get(method).status in (401, 403):
            raise Broken(f"{method} asks for credentials")
