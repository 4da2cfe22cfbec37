"""Every route with every kind of bad input: an answer in the error form, never a crash."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from relay.dash.actions import ACTIONS
from relay.web.callers import MAX_FAILURES
from tests.support import interop
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.web import ADMIN, PASSWORD, Web

JSON = {**ADMIN, "Content-Type": "application/json"}
PARAMETERS = (
    "cursor",
    "limit",
    "did",
    "hostname",
    "host",
    "block",
    "enabled",
    "since",
    "collection",
    "Domain",
    "domain",
    "source",
    "stop",
    "role",
    "id",
)
VALUES = (
    "",
    " ",
    "0",
    "1",
    "-1",
    "1001",
    "9007199254740991",
    "9223372036854775808",
    "9" * 400,
    "1.0",
    "NaN",
    "true",
    "null",
    "٣",
    "\0",
    "a\nb",
    "é" * 300,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    did(1),
    "did:web:example.com",
    "did:plc:" + "a" * 3000,
    "at://x/y",
    "pds1.example.com",
    "pds1.example.com:99999",
    "http://user@pds1.example.com/path?x",
    "[::1]",
    "%",
    "' OR 1=1 --",
    "<script>",
    "../../etc/passwd",
)
BODIES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": None},
)
NAMES = (
    "hostname",
    "host",
    "did",
    "Domain",
    "repo_limit",
    "per_second",
    "per_hour",
    "per_day",
    "crawl_rate",
    "account_limit_alerts_silenced",
    "collections",
    "kind",
    "hostID",
    "accountCount",
    "accountLimit",
    "usage",
    "sentAt",
)
RAW_BODIES = (b"", b"{", b"[" * 60_000, b"\xff", b"null", b'{"did":"\\ud800"}', b'{"hostname":"\\u0000"}')


def routes(web: Web) -> list[tuple[str, str]]:
    return [
        (method, rule.rule.replace("<hostname>", "pds1.example.com"))
        for rule in web.app.url_map.iter_rules()
        if not (rule.websocket or rule.rule.startswith("/dash"))
        for method in sorted((rule.methods or set()) & {"GET", "POST"})
    ]


def check(answer: TestResponse, asked: object) -> None:
    assert answer.status_code < 500, (asked, answer.data)
    if answer.status_code >= 400:
        error = answer.get_json()
        assert set(error) == {"error", "message"} and error["error"].isidentifier(), (asked, error)
        assert isinstance(error["message"], str)


@pytest.fixture
def known(web: Web) -> Web:
    hosts = add_hosts(web.db, 3)
    add_accounts(web.db, hosts[0], [("active", "active"), ("takendown", "active"), ("active", "deleted")])
    return web


def test_no_query_crashes_any_route(known: Web) -> None:
    client = known.app.test_client()
    asked = 0
    for (method, path), name, value in itertools.product(routes(known), PARAMETERS, VALUES):
        check(client.open(path, method=method, query_string={name: value}, headers=ADMIN), (method, path, name, value))
        asked += 1
    for (method, path), name in itertools.product(routes(known), PARAMETERS):
        check(client.open(path, method=method, query_string=[(name, "1")] * 2, headers=ADMIN), (method, path, name))
    assert asked > 5_000


def test_no_body_crashes_any_route(known: Web) -> None:
    client = known.app.test_client()
    posts = [path for method, path in routes(known) if method == "POST"]
    for path, raw in itertools.product(posts, RAW_BODIES):
        check(client.post(path, data=raw, headers=JSON), (path, raw[:20]))
    for path, name, value in itertools.product(posts, NAMES, BODIES + VALUES):
        # A public name would be looked up in the DNS, and is another test's business.
        if not (path.endswith("requestCrawl") and "example" in str(value)):
            body = {"host": "pds1.example.com", name: value}
            check(client.post(path, data=json.dumps(body).encode(), headers=JSON), (path, body))


def test_no_query_and_no_form_crashes_a_page_for_people(known: Web) -> None:
    client = known.app.test_client()
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/dash/login", data={"password": PASSWORD}, headers=headers).status_code == 303
    page = client.get("/dash/crawling").get_data(as_text=True)
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    queries = ("search", "state", "sort", "order", "page", "did", "cursor", "next")
    subjects = ("host", "hostname", "did", "domain", "enabled", "limit", "repo_limit", "per_day")
    pages = ["/", "/hosts", "/hosts/pds1.example.com", "/crawling", "/accounts", "/consumers", "/login"]
    asked = list(itertools.product(pages, queries, VALUES))
    asked += itertools.product([f"/confirm/{action}" for action in ACTIONS], subjects, VALUES)
    for path, name, value in asked:
        answer = client.get(f"/dash{path}", query_string={name: value})
        assert answer.status_code < 500, (path, name, value)
        assert answer.status_code == 303 or answer.mimetype == "text/html", (path, name, value)
    for action, name, value in itertools.product(ACTIONS, subjects, VALUES):
        if not (action == "crawl" and "example" in value):
            form = {"host": "pds1.example.com", name: value, "csrf": token}
            answer = client.post(f"/dash/do/{action}", data=form, headers=headers)
            assert answer.status_code in (303, 404), (action, name, value)
            if answer.location:
                assert client.get(answer.location).status_code < 500, (action, name, value)
    for value in VALUES:
        path = f"/dash/hosts/{quote(value, safe='')}"
        assert client.get(path).status_code < 500, path


def test_no_credentials_crash_the_admin_api(known: Web) -> None:
    client = known.app.test_client()
    for value in VALUES:
        for scheme in ("Basic ", "Bearer ", "Digest ", ""):
            header = (scheme + value).encode("utf-8", "replace").decode("latin-1").replace("\n", "").replace("\0", "")
            answer = client.get("/admin/pds/list", headers={"Authorization": header})
            assert answer.status_code in (401, 429)
    assert len(VALUES) > MAX_FAILURES


LEXICONS = interop.FOLDER / "lexicons-com-atproto-sync"
SERVED = {
    "listHosts",
    "getHostStatus",
    "listRepos",
    "listReposByCollection",
    "getRepoStatus",
    "getLatestCommit",
    "getRepo",
    "requestCrawl",
}
EXAMPLES = {"did": did(1), "hostname": "pds1.example.com", "collection": "app.bsky.feed.post"}


@pytest.mark.skipif(not LEXICONS.is_dir(), reason="RELAY_INTEROP_DIR is not set")
@pytest.mark.parametrize("method", sorted(SERVED))
def test_parameters_are_those_of_the_lexicon(known: Web, method: str) -> None:
    main = json.loads((LEXICONS / f"{method}.json").read_text())["defs"]["main"]
    client = known.app.test_client()
    path = f"/xrpc/com.atproto.sync.{method}"
    if main["type"] == "procedure":
        assert client.get(path).status_code == 405
        for name in main["input"]["schema"]["required"]:
            assert name in client.post(path, json={}).get_json()["message"]
        return
    assert client.post(path).status_code == 405
    parameters = main["parameters"]["properties"]
    needed = {name: EXAMPLES[name] for name in main["parameters"].get("required", ())}
    assert client.get(path, query_string=needed).status_code in (200, 302)
    for name in needed:
        refused = client.get(path, query_string={key: value for key, value in needed.items() if key != name})
        assert refused.status_code == 400 and name in refused.get_json()["message"]
    for name, schema in parameters.items():
        if schema["type"] == "integer":
            for value, status in [
                (schema["minimum"], 200),
                (schema["maximum"], 200),
                (schema["minimum"] - 1, 400),
                (schema["maximum"] + 1, 400),
                ("x", 400),
            ]:
                assert client.get(path, query_string={**needed, name: value}).status_code == status, (name, value)
        elif "format" in schema and name in needed:
            assert client.get(path, query_string={**needed, name: "no such format"}).status_code == 400


@pytest.mark.skipif(not LEXICONS.is_dir(), reason="RELAY_INTEROP_DIR is not set")
@pytest.mark.parametrize(
    "method", sorted({"listHosts", "getHostStatus", "listRepos", "getRepoStatus", "getLatestCommit"})
)
def test_answers_are_those_of_the_lexicon(known: Web, method: str) -> None:
    definitions = json.loads((LEXICONS / f"{method}.json").read_text())["defs"]
    main = definitions["main"]
    needed = {name: EXAMPLES[name] for name in main["parameters"].get("required", ())}
    answer = known.app.test_client().get(f"/xrpc/com.atproto.sync.{method}", query_string=needed).get_json()
    matches(answer, main["output"]["schema"], definitions)


KINDS = {"string": "str", "integer": "int", "boolean": "bool", "array": "list", "object": "dict"}


def matches(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    if schema["type"] == "ref":
        if schema["ref"].startswith("#"):
            matches(value, definitions[schema["ref"][1:]], definitions)
        return
    assert type(value).__name__ == KINDS[schema["type"]], (value, schema)
    if schema["type"] == "array":
        assert value, "nothing to compare with"
        for item in value:
            matches(item, schema["items"], definitions)
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"])
        for name, item in value.items():
            matches(item, schema["properties"][name], definitions)
