"""An admin at the dashboard without a browser: keeps the cookie, sends forms as browsers do, reads pages as text."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from tests.support.http import Answer, call


class DashAdmin:
    """Logged in with `log_in`. `headers` go with every request; the same origin is sent unless they say otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookie = ""
        self.headers: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Answer:
        return call(self.url + path, headers=self._headers(headers))

    def page(self, path: str, **headers: str) -> str:
        """A page that has to be there, tags taken off and entities read."""
        answer = self.get(path, **headers)
        assert answer.status == 200, (path, answer.status, answer.body)
        return text_of(answer.body)

    def post(
        self, path: str, fields: Mapping[str, str | list[str]], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form; `headers` None is what a browser says of a form of our own."""
        headers = {"Origin": self.url} if headers is None else headers
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return call(self.url + path, urlencode(fields, doseq=True).encode(), headers=self._headers(form))

    def log_in(self, password: str, **fields: str) -> Answer:
        answer = self.post("/dash/login", {"password": password, **fields})
        self.cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
        return answer

    def csrf(self) -> str:
        """The token in the forms of this session's pages."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/dash/crawling").body.decode())
        assert found
        return found[1]

    def do(self, action: str, **fields: str | list[str]) -> Answer:
        """Send an action's form with its token."""
        answer = self.post(f"/dash/do/{action}", {"csrf": self.csrf(), **fields})
        assert answer.status == 303, (action, answer.status, answer.body)
        return answer

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**({"Cookie": self.cookie} if self.cookie else {}), **self.headers, **headers}


def text_of(page: bytes) -> str:
    """What a person reads on a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.decode())).split())
