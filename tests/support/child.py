"""A child process whose output lines are watched: how tests run the reference network, consumers and the relay.

Each child is stopped by its own process id. Output is read as it comes, so a child never waits on a full pipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Child:
    """A started process. `lines` is what it has printed so far (stderr too, unless that has its own file), `messages`
    those lines that are JSON objects."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stderr: Path | None = None,
    ) -> None:
        self.lines: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self._news = threading.Condition()
        errors = stderr.open("ab") if stderr else subprocess.STDOUT
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        if stderr:
            errors.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                if line.startswith("{"):
                    self.messages.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Return when `condition`, looked at after each new line, is true; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"waited {timeout} s in vain; last output: {self.lines[-5:]}"
                assert self.running, f"ended with {self.process.returncode}; last output: {self.lines[-20:]}"
                self._news.wait(min(left, 0.5))

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """The first line with `text` in it, waited for."""
        found: list[str] = []

        def seen() -> bool:
            found.extend(line for line in self.lines if text in line)
            return bool(found)

        self.wait_until(seen, timeout)
        return found[0]

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one JSON line to the child's stdin."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash does it."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout: float = 35) -> int:
        """SIGTERM and the exit code; a child that does not end in `timeout` seconds is killed and fails the test."""
        self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {timeout} s of SIGTERM") from None

    def close(self) -> None:
        """End the process however it takes."""
        if self.running:
            self.kill()
        assert self.process.stdin and self.process.stdout
        # A file must not be closed while it is read, and the end of the process ends the reading.
        self._reader.join(5)
        self.process.stdin.close()
        # A file that another greenlet still reads from can not be closed.
        self._reader.join(5)
        self.process.stdout.close()
