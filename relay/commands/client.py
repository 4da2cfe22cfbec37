"""The client side of the admin API, for the commands that ask a running relay; and how commands print.

Standard library only, so that `relay hosts list` starts quickly. Where the relay listens and its password come from
the same environment and env file that the relay itself reads. Tables are for people, JSON is for scripts.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from functools import wraps
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

import click

from relay.config import Settings
from relay.kit.credentials import basic
from relay.kit.env_file import environment_with
from relay.kit.errors import ConfigError
from relay.kit.tls import verifying_context

TIMEOUT = 60.0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class Client:
    """Asks one relay. Answers other than success end the command with a line on stderr and an exit code."""

    def __init__(self, url: str, password: str, as_json: bool) -> None:
        self._as_json = as_json
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        # Without one nothing is sent: an empty password would be a wrong one.
        self._has_password = bool(password)
        if password:
            self._headers["Authorization"] = basic(password)

    @property
    def url(self) -> str:
        """The relay's address."""
        return self._url

    @property
    def credentials(self) -> dict[str, str]:
        """The Authorization header, if there is a password."""
        return {name: value for name, value in self._headers.items() if name == "Authorization"}

    def get(self, path: str, **query: object) -> Any:
        """The JSON that a route answers with."""
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: dict[str, Any] | None = None, **query: object) -> Any:
        """The JSON that a route answers with after a change."""
        return self._ask("POST", path, query, body or {})

    def show(self, value: Any, as_text: Callable[[Any], object]) -> None:
        """Print a value as JSON, if that is wanted, or else have `as_text` print it."""
        if self._as_json:
            print_json(value)
        else:
            as_text(value)

    def done(self, answer: Any, message: str) -> None:
        """Say that a change is made: by the relay's answer in JSON, or by a message."""
        self.show(answer, lambda _: click.echo(message))

    def _ask(self, method: str, path: str, query: dict[str, object], body: dict[str, Any] | None) -> Any:
        target = f"{self._url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(target, data=data, headers=self._headers, method=method)
            with _opener(self._url).open(request, timeout=TIMEOUT) as answer:
                found = json.loads(answer.read())
            if not isinstance(found, dict | list):
                raise ValueError("what answers is not a relay")
            return found
        except urllib.error.HTTPError as error:
            if error.code == 401 and not self._has_password:
                fail(EXIT_USAGE, "no admin password is set: use RELAY_ADMIN_PASSWORD, --password or --env-file")
            fail(EXIT_REFUSED, _refusal(error))
        except (OSError, ValueError, HTTPException) as error:
            fail(EXIT_UNREACHABLE, f"no relay answers at {self._url}: {getattr(error, 'reason', error)}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the password goes nowhere else, and a POST must not become a GET."""

    def redirect_request(self, *_: object) -> None:
        """Do not follow."""


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=verifying_context()))
    # As in Go, and so in the reference relay's tools.
    if _is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def fail(code: int, message: str) -> NoReturn:
    """End the command with one line on stderr."""
    click.echo(f"relay: {plain(' '.join(message.split()))}", err=True)
    sys.exit(code)


def with_client(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which relay to ask, and a Client as its first argument."""

    @click.option("--url", metavar="URL", help="The relay's address [default: RELAY_API_BIND on this machine].")
    @click.option("--password", metavar="TEXT", help="Its admin password [default: RELAY_ADMIN_PASSWORD].")
    @click.option("--env-file", type=click.Path(path_type=Path), help="Read both from the relay's env file.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
    @wraps(function)
    def command(
        *args: Any, url: str | None, password: str | None, env_file: Path | None, as_json: bool, **rest: Any
    ) -> None:
        try:
            settings = Settings.from_environment(environment_with(env_file))
        except ConfigError as error:
            fail(EXIT_USAGE, str(error))
        known = settings.admin_passwords[0] if settings.admin_passwords else ""
        client = Client(url or _local_url(settings), known if password is None else password, as_json)
        function(client, *args, **rest)

    return command


def _local_url(settings: Settings) -> str:
    host, port = settings.api_bind
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refusal(error: urllib.error.HTTPError) -> str:
    """The error's words: in the form of XRPC, or of the health routes."""
    if (location := error.headers.get("Location")) is not None:
        return f"HTTP {error.code}: the relay's address is another one, {location}"
    try:
        body = json.loads(error.read())
    except (ValueError, OSError, HTTPException):
        body = None
    if not isinstance(body, dict):
        return f"HTTP {error.code}"
    return f"{body.get('error', f'HTTP {error.code}')}: {body.get('message', body.get('msg'))}"


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their titles; numbers stand to the right."""
    texts = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    click.echo(_line(titles, widths, [False] * len(titles)))
    for row, cells in zip(rows, texts, strict=True):
        click.echo(_line(cells, widths, [isinstance(cell, int | float) for cell in row]))


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        click.echo(f"{name:<{width}}  {plain(value)}")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    aligned = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def plain(value: object) -> str:
    """For a terminal: texts from the network lose their control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(character if character.isprintable() else "?" for character in str(value))
