"""The relay as its operator runs it: a process with settings in its environment, data in a folder, and two ports."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.support.child import Child
from tests.support.http import Answer, call, free_ports
from tests.support.wait import PATIENCE

ROOT = Path(__file__).parents[2]
RELAY = Path(sys.executable).parent / "relay"
PASSWORD = "e2e-password"


class RelayProcess:
    """Started, killed and started again on the same data and ports. Settings can be changed in between."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], command: Sequence[str | Path] = (RELAY, "serve")
    ) -> None:
        self.folder = folder
        self.log = folder / "relay.log"
        self.command = command
        api, metrics = free_ports(2)
        self.url = f"http://127.0.0.1:{api}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self.metrics_health = f"http://127.0.0.1:{metrics}/_health"
        self.firehose = f"ws://127.0.0.1:{api}/xrpc/com.atproto.sync.subscribeRepos"
        self.settings = {
            "DATABASE_URL": f"sqlite://{folder}/relay.sqlite",
            "RELAY_PERSIST_DIR": str(folder / "persist"),
            "RELAY_API_BIND": f"127.0.0.1:{api}",
            "RELAY_METRICS_LISTEN": f"127.0.0.1:{metrics}",
            "RELAY_ADMIN_PASSWORD": PASSWORD,
            "RELAY_ALLOW_INSECURE_HOSTS": "true",
            **settings,
        }
        self.password = PASSWORD
        self.child: Child | None = None

    def begin(self) -> Child:
        """Start the relay, and do not wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = Child(self.command, cwd=ROOT, env=self.settings, stderr=self.log)
        return self.child

    def start(self, timeout: float = 30) -> None:
        """Start the relay and wait until it says that it is ready."""
        child = self.begin()

        def ready() -> bool:
            assert child.running, f"the relay did not start:\n{self.log_tail()}"
            return self._ready()

        self.wait_until(ready, timeout)

    def _ready(self) -> bool:
        try:
            return call(f"{self.url}/_health", timeout=5).status == 200
        except (URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        assert self.child
        self.child.kill()

    def stop(self) -> int:
        assert self.child
        return self.child.stop()

    def close(self) -> None:
        if self.child:
            self.child.close()

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def xrpc(self, method: str, query: str = "") -> Answer:
        """GET a `com.atproto.sync` query."""
        return call(f"{self.url}/xrpc/com.atproto.sync.{method}?{query}")

    def admin(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """The JSON of a successful admin request."""
        answer = self.ask_admin(path, body, method=method)
        assert answer.status == 200, (answer.status, answer.body, self.log_tail())
        return answer.json

    def ask_admin(self, path: str, body: Any = None, *, method: str | None = None) -> Answer:
        """The answer to an admin request, whatever it is."""
        token = base64.b64encode(f"admin:{self.password}".encode()).decode()
        return call(f"{self.url}/admin/{path}", body, method=method, headers={"Authorization": f"Basic {token}"})

    def crawl(self, *hosts: str) -> None:
        """Subscribe to `hosts`, the first of this relay, and wait until it is connected to them."""
        for host in hosts:
            self.admin("pds/requestCrawl", {"hostname": host})
        self.wait_connected(len(hosts))

    def lift_limits(self, hostname: str) -> None:
        """Let a host of this relay send as fast and for as many accounts as a test can."""
        limits = {"repo_limit": 10**6, "per_second": 10**6, "per_hour": 10**9, "per_day": 10**9}
        self.admin("pds/changeLimits", {"host": hostname, **limits})

    def wait_until(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        """Ask again until `condition` is true; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout} s in vain:\n{self.log_tail()}"
            time.sleep(0.05)

    def wait_connected(self, count: int, timeout: float = 20) -> None:
        """Wait until `count` hosts or more are connected."""
        self.wait_until(lambda: len(self.admin("subs/getUpstreamConns") or ()) >= count, timeout)

    def wait_metric(self, name: str, value: float) -> None:
        """Wait until the samples of a metric come to `value` or more."""
        self.wait_until(lambda: self.metric(name) >= value)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric whose labels are these, 0 when there are none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.samples(name) if all(one in line for one in wanted))

    def samples(self, name: str) -> list[str]:
        """The samples of a metric as they are written, with labels and value."""
        text = call(self.metrics_url).body.decode()
        return [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
