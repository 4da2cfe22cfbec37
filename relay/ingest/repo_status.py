"""`getRepoStatus`: what an account's host says of it when it is asked.

Used by the status check and by healing. Believes nothing that is not of the form the lexicon gives. Keeps nothing.
"""

from __future__ import annotations

import logging

from relay.atproto.events import host_status
from relay.hosts.host import Host
from relay.kit import metrics
from relay.kit.errors import RelayError
from relay.net.http import GuardedHttp, xrpc_url

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 64 << 10

log = logging.getLogger(__name__)


def repo_status(http: GuardedHttp, host: Host, did: str) -> str | None:
    """The status of `did` in the words of `events.host_status`; None when the host does not tell."""
    url = xrpc_url(host.endpoint.url, "com.atproto.sync.getRepoStatus", {"did": did})
    try:
        response = http.get(url, timeout=TIMEOUT_SECONDS, max_bytes=MAX_BYTES)
        answer = response.json_object() if response.status == 200 else None
    except (RelayError, OSError) as error:
        log.debug("getRepoStatus of %s at %s failed: %s", did, host.hostname, error)
        answer = None
    active = answer.get("active") if answer is not None else None
    if answer is None or answer.get("did") != did or not isinstance(active, bool):
        metrics.STATUS_CHECKS.labels("unanswered").inc()
        return None
    metrics.STATUS_CHECKS.labels("answered").inc()
    status = answer.get("status")
    return host_status(active, status if isinstance(status, str) else None)
