"""Posts a message for people to the operator's webhook: the JSON that Slack, and what speaks like it, takes.

Given to `limit_alerts` by `app`. The address is a secret, as whoever has it may post there: no error names it.
"""

from __future__ import annotations

from relay.kit import metrics
from relay.kit.errors import HttpError, RelayError
from relay.net.http import GuardedHttp

TIMEOUT_SECONDS = 10.0


class Webhook:
    """One address. It is the operator's word, and so may be plain or private."""

    def __init__(self, http: GuardedHttp, url: str) -> None:
        self._http = http.for_operator()
        self._url = url

    def send(self, text: str) -> None:
        """Post `text`. Raises HttpError when it was not taken: `http-refused` for a status other than success."""
        try:
            status = self._http.post_json(self._url, {"text": text}, timeout=TIMEOUT_SECONDS).status
        except RelayError as error:
            metrics.ALERTS_SENT.labels("failed").inc()
            raise HttpError(error.reason) from None
        if not 200 <= status < 300:
            metrics.ALERTS_SENT.labels("refused").inc()
            raise HttpError("http-refused", f"HTTP {status}")
        metrics.ALERTS_SENT.labels("sent").inc()
