"""The downstream side of the soak in a process of its own: a consumer that checks everything, others come and go.

Run by the harness: `python -m tests.bench.soak.audience URL TAKEN`; TAKEN is the file with the DIDs that are taken down
now and then, of which only the order is checked. Prints `{"connected": true}`. `{"tell": true}` on stdin prints
`{"seen": N}`, the events but for those; `{"write": FILE}` writes into FILE how many of each account came and what was
wrong, and prints `{"written": true}`. Ends when stdin closes.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections import deque  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from tests.bench.network.consumers import Consumer  # noqa: E402
from tests.bench.soak.checking import Checker  # noqa: E402

COMES_EVERY = 1.0
STAYS_SECONDS = (2.0, 40.0)
BEHIND_EVENTS = 20_000


def come_and_go(url: str, steady: Consumer, ended: deque[str]) -> None:
    """One consumer after the other, a third of them behind."""
    while True:
        behind = max(0, steady.last_seq - random.randrange(BEHIND_EVENTS))
        gevent.spawn(visit, f"{url}?cursor={behind}" if random.random() < 1 / 3 else url, ended)
        gevent.sleep(COMES_EVERY)


def visit(url: str, ended: deque[str]) -> None:
    consumer = Consumer(url, None)
    reading = gevent.spawn(consumer.run)
    reading.join(random.uniform(*STAYS_SECONDS))
    if consumer.ended:
        ended.append(consumer.ended)
    reading.kill()
    consumer.socket.close()


def main(url: str, taken: Path) -> None:
    checker = Checker(set(json.loads(taken.read_text())))
    steady = Consumer(url, checker)
    ended: deque[str] = deque(maxlen=100)
    gevent.spawn(steady.run)
    gevent.spawn(come_and_go, url, steady, ended)
    print(json.dumps({"connected": True}), flush=True)
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        command = json.loads(line)
        if "tell" in command:
            print(json.dumps({"seen": checker.seen}), flush=True)
        else:
            wrong = {"not_rising": steady.not_rising, "ended": steady.ended, "others_ended": list(ended)}
            Path(command["write"]).write_text(json.dumps(checker.found() | wrong))
            print(json.dumps({"written": True}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
