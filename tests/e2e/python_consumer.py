"""The second, independent consumer: PyPI's `atproto`. Run as a process of its own: `python_consumer.py URL CURSOR`.

Prints the same JSON lines as `consumer.mjs`. It reconnects by itself, from the last event it has printed, and ends when
stdin closes, so that it never outlives the test.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from atproto import CAR, FirehoseSubscribeReposClient, models, parse_subscribe_repos_message

Events = models.ComAtprotoSyncSubscribeRepos


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def main(base_uri: str, cursor: int) -> None:
    client = FirehoseSubscribeReposClient({"cursor": cursor}, base_uri=base_uri, recv_timeout=300)
    # Of itself it waits twice as long each time that a relay is not there yet, up to a minute.
    client._max_reconnect_delay_sec = 1

    def on_message(frame: Any) -> None:
        event = parse_subscribe_repos_message(frame)
        if isinstance(event, Events.Commit):
            say(event="commit", seq=event.seq, did=event.repo, rev=event.rev)
            records = CAR.from_bytes(event.blocks).blocks
            for op in event.ops:
                if op.cid is not None and op.cid not in records:
                    say(error=f"{op.path} of seq {event.seq} is not in the blocks")
                say(
                    event=op.action,
                    seq=event.seq,
                    did=event.repo,
                    rev=event.rev,
                    path=op.path,
                    cid=op.cid and str(op.cid),
                )
        elif isinstance(event, Events.Account):
            say(event="account", seq=event.seq, did=event.did, active=event.active, status=event.status)
        elif isinstance(event, Events.Identity):
            say(event="identity", seq=event.seq, did=event.did)
        elif isinstance(event, Events.Sync):
            say(event="sync", seq=event.seq, did=event.did, rev=event.rev)
        else:
            say(error=f"unexpected message: {event}")
            return
        client.update_params({"cursor": event.seq})

    threading.Thread(target=end_with_stdin, daemon=True).start()
    client.start(on_message, lambda error: say(error=repr(error)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
