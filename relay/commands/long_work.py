"""Work of the relay's that takes minutes or hours, from the command line: begun, stopped, or watched until it is over.

Used by `backfill_collections` and `heal`, whose routes are alike: POST begins, or ends with `stop`, and GET tells how
far it is. Must not know what the work is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import click

from relay.commands.client import EXIT_USAGE, Client, fail

POLL_SECONDS = 1.0

View = dict[str, Any]


class Progress(NamedTuple):
    """How far some work of the relay is: `done` pieces of a `total` that may grow; `words` stand behind the bar."""

    total: int
    done: int
    words: str
    over: bool


class LongWork(NamedTuple):
    """One kind of it: its route, the label of its bar, how far a view says that it is, how to print a view as text, and
    what GET is asked for beside what POST is.
    """

    path: str
    label: str
    progress: Callable[[View], Progress]
    as_text: Callable[[View], None]
    more: Mapping[str, object] = {}

    def run(
        self,
        client: Client,
        query: Mapping[str, str],
        body: View | None = None,
        *,
        status: bool,
        stop: bool,
        background: bool,
    ) -> View:
        """Begin, and watch it unless in the `background`; or `stop` it; or only ask for its `status`.

        Prints the last view, and returns it.
        """
        if status + stop + background > 1:
            fail(EXIT_USAGE, "--status, --stop and --background cannot be combined")
        if stop:
            client.post(self.path, None, **query, stop="true")
        elif not status:
            client.post(self.path, body, **query)
        look = partial(client.get, self.path, **query, **self.more)
        view = look() if status or stop or background else self._watch(look)
        client.show(view, self.as_text)
        return view

    def _watch(self, look: Callable[[], View]) -> View:
        """Show a bar on stderr until the work is over, looking once a second; returns the last view.

        The bar is left as it is when people interrupt it.
        """
        view = look()
        now = self.progress(view)
        with click.progressbar(
            length=max(now.total, 1), label=self.label, item_show_func=lambda words: words, file=sys.stderr
        ) as bar:
            while True:
                bar.length = max(now.total, 1)
                bar.update(now.done - bar.pos, now.words)
                # The words change although no further piece may be done for an hour.
                bar.render_progress()
                if now.over:
                    return view
                time.sleep(POLL_SECONDS)
                view = look()
                now = self.progress(view)
