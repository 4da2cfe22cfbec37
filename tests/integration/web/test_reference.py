"""`docs/reference.md` has the routes and commands of the code, and its curl lines do what they say."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from gevent import subprocess

from relay.cli import main
from relay.kit.values import Bind
from relay.web.metrics_server import MetricsServer
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.pds import FakePds
from tests.support.wait import until
from tests.support.web import PASSWORD, Web
from tests.support.websocket import connect

REFERENCE = (Path(__file__).parents[3] / "docs" / "reference.md").read_text(encoding="utf-8")


def table(web: Web) -> list[str]:
    """The document's lines: every route by its path, with the first line of its function's docstring."""
    rows: dict[tuple[str, str], str] = {}
    for rule in web.app.url_map.iter_rules():
        method = "WebSocket" if rule.websocket else "POST" if "POST" in (rule.methods or ()) else "GET"
        doc = (web.app.view_functions[rule.endpoint].__doc__ or "").splitlines()[0]
        path = re.sub("<(?:path:)?([a-z]+)>", lambda name: name[1].upper(), rule.rule)
        rows[path, method] = f"| `{method} {path}` | {doc.rstrip('.')} |"
    ordered = sorted(rows, key=lambda row: (row[0].startswith("/admin"), not row[0].startswith("/xrpc/com."), row))
    return ["| route | answer or effect |", "|---|---|", *(rows[row] for row in ordered)]


def test_the_table_of_routes_is_the_codes(web: Web) -> None:
    said = REFERENCE.split("<!-- routes -->")[1].split("<!-- /routes -->")[0].strip().splitlines()
    assert said == table(web), "\n".join(table(web))


def test_the_tables_of_answers_have_their_fields(web: Web) -> None:
    said = REFERENCE.split("<!-- answers -->")[1].split("<!-- /answers -->")[0]
    hosts, consumers = (re.findall(r"`(\w+)`", part) for part in said.split("| field of a consumer"))
    with FakePds() as pds, connect(web.stream):
        web.admin("/admin/pds/requestCrawl", {"hostname": pds.url})
        (host,) = web.admin("/admin/pds/list").json
        until(lambda: len(web.admin("/admin/consumers/list").json) == 1)
        (consumer,) = web.admin("/admin/consumers/list").json
    # Values are in lower case here, fields in upper case, and what no alert was sent about lacks one.
    assert {name for name in hosts if name[0].isupper()} == {*host, "AccountLimitAlertSentAt", "Max"}
    assert {*consumers} - {"firehose", "json"} == set(consumer)


def commands(group: click.Group, words: str) -> Iterator[str]:
    """A line for each command that does something, with the first sentence of its help."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{words} {name}")
        elif command is not None:
            arguments = [
                f" {each.make_metavar(click.Context(command))}"
                for each in command.params
                if isinstance(each, click.Argument)
            ]
            said = " ".join((command.help or "").split()).partition(". ")[0].rstrip(".")
            yield f"| `{words} {name}{''.join(arguments)}` | {said} |"


def test_the_table_of_commands_is_the_codes() -> None:
    said = REFERENCE.split("<!-- commands -->")[1].split("<!-- /commands -->")[0].strip().splitlines()
    expected = ["| command | effect |", "|---|---|", *commands(main, "relay")]
    assert said == expected, "\n".join(expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_work(web: Web) -> None:
    lines = [
        line.strip() for line in re.sub(r"\\\n\s*", "", REFERENCE).splitlines() if line.strip().startswith("curl ")
    ]
    assert len(lines) >= 3
    metrics = MetricsServer(Bind("127.0.0.1", 0), lambda: None)
    metrics.start()
    with FakePds() as pds:
        replaced = {
            "PASSWORD": PASSWORD,
            "127.0.0.1:2470": f"127.0.0.1:{web.server.port}",
            "127.0.0.1:2471": f"127.0.0.1:{metrics.port}",
            "pds.example.com": pds.url,
        }
        for line in lines:
            for said, here in replaced.items():
                line = line.replace(said, here)
            done = subprocess.run([*shlex.split(line), "-sS", "--fail"], capture_output=True, timeout=60)
            assert done.returncode == 0 and done.stdout, (line, done.stderr)
        until(lambda: web.hosts.connected() == [pds.hostname])
    metrics.stop()
