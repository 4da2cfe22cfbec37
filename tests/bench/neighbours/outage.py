"""An outage of the PLC directory under load: `python -m tests.bench.neighbours.outage [--seconds 1200]`.

Known accounts write on, half of them with a document that was read more than a day ago, and now and then one tells of a
change of its identity; new accounts come all the time. Prints how many commits have not come yet, each minute; when it
is over, how many of those sent before its end are missing at once, and after at most two minutes. Exits with 1 when one
is lost.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from tests.bench.neighbours.scene import MODULE, Arrivals, Process, Sent, add_options, scene  # noqa: E402
from tests.bench.network.consumers import Consumer  # noqa: E402
from tests.support.relay_process import RelayProcess  # noqa: E402

ALL_THROUGH_SECONDS = 120.0
TOLD_SECONDS = 60.0


def age_documents(relay: RelayProcess) -> None:
    """Stop the relay and start it again with half of the documents out of date."""
    relay.stop()
    with sqlite3.connect(relay.folder / "relay.sqlite") as sql:
        sql.execute("UPDATE identity SET resolved_at = resolved_at - 90000 WHERE substr(did, -1) > 'l'")
    relay.start()


def sent_by(honest: Process) -> list[Sent]:
    """What was sent up to now."""
    honest.tell('{"report": true}')
    return [(did, rev, at, new) for did, rev, at, new in honest.answer()]


def told(name: str, missing: list[Sent], since: float) -> None:
    new = sum(each[3] for each in missing)
    line = f"{time.monotonic() - since:6.0f} s {name}: {len(missing)} commits to come, {new} of them of new accounts"
    print(f"{line}; load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}.outage", description=__doc__.partition("\n\n")[2])
    add_options(parser, rate=30)
    parser.add_argument("--seconds", type=float, default=1200.0)
    options = parser.parse_args()
    with scene(options) as (relay, honest, before):
        honest.tell('{"silent": true, "identities": true}')
        age_documents(relay)
        arrivals = Arrivals()
        arrivals.came.update(before.came)
        gevent.spawn(Consumer(f"{relay.firehose}?cursor=0", arrivals).run)
        began = time.monotonic()
        while (left := began + options.seconds - time.monotonic()) > 0:
            gevent.sleep(min(TOLD_SECONDS, left))
            told("away", arrivals.lacking(sent_by(honest)), began)
        sent = sent_by(honest)
        honest.tell('{"silent": false}')
        over = time.monotonic()
        arrivals.wait(sent, ALL_THROUGH_SECONDS)
        lost = arrivals.lacking(sent)
        told("after it", lost, over)
        new = sum(new for *_, new in sent)
        print(f"sent: {len(sent)}, {new} of them of new accounts; lost: {len(lost)}")
        print(f"dropped: {relay.metric('relay_events_dropped_total'):.0f}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
