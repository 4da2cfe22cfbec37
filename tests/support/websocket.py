"""A WebSocket client that others wrote, for tests in this process, where gevent stands in for threads and selectors.

`connect` is `websockets.sync.client.connect`. At the end of a `with` its connections are cut: a relay looks for what
consumers send, goodbyes too, once a second. `close()` says goodbye. They wait until the greenlet that reads has left
its selector before they close the socket: gevent's event loop ends the process when a descriptor that it watches is
closed.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from websockets.protocol import Event
from websockets.sync import client
from websockets.sync.client import ClientConnection

# The reader leaves as soon as it is told. It may be in the middle of a message.
LEAVE_SECONDS = 10.0


class Connection(ClientConnection):
    def __exit__(self, *_: object) -> None:
        self.close_socket()

    def process_event(self, event: Event) -> None:
        # A reader that is told to leave still hands over what it holds.
        with suppress(EOFError):
            super().process_event(event)

    def close_socket(self) -> None:
        if threading.current_thread() is not self.recv_events_thread:
            try:
                self.shutdown_notifier.send(b"x")
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return super().close_socket()
            # One whose buffer is full waits for a reader of messages.
            self.recv_messages.close()
            self.recv_events_thread.join(LEAVE_SECONDS)
        return super().close_socket()


connect = partial[Any](client.connect, create_connection=Connection)
