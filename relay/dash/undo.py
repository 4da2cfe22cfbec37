"""What takes a change back: the action that does so, with the state from before the change in its fields.

Asked by `actions` before each change. Where two actions are each other's opposite, the fields are the same. Must not
change anything.
"""

from __future__ import annotations

from werkzeug.datastructures import MultiDict

from relay.dash.access import Undo
from relay.hosts.lifecycle import Status
from relay.kit.errors import RelayError
from relay.store.hosts import RATE_TIERS, is_banned
from relay.web import params
from relay.web.errors import XrpcError
from relay.web.services import relay_services

OPPOSITES = {
    "block": "unblock",
    "unblock": "block",
    "disconnect": "reconnect",
    "ban-domain": "unban-domain",
    "unban-domain": "ban-domain",
    "take-down": "restore",
    "restore": "take-down",
}
SUBJECTS = ("host", "domain", "did")


def undo_of(action: str, form: MultiDict[str, str]) -> Undo | None:
    """How to take back the change that a form asks for, None where there is no way or the form asks for nothing."""
    try:
        return _undo_of(action, form)
    except (XrpcError, RelayError):
        # The change itself says why.
        return None


def _undo_of(action: str, form: MultiDict[str, str]) -> Undo | None:
    if action in OPPOSITES:
        if _is_so(action, form):
            # Somebody else was faster: what takes this back would take theirs back.
            return None
        return Undo(OPPOSITES[action], {name: form[name] for name in SUBJECTS if name in form})
    hosts = relay_services().hosts
    if action == "limits":
        row = hosts.report(form.get("host", "")).host.row
        rates: dict[str, str] = {tier: str(getattr(row, tier) or "") for tier in RATE_TIERS}
        return Undo(action, {"host": row.hostname, "repo_limit": str(row.account_limit), **rates})
    if action == "alerts":
        row = hosts.report(form.get("host", "")).host.row
        return Undo(action, {"host": row.hostname, "silenced": _word(row.alerts_silenced)})
    if action == "crawl-requests":
        return Undo(action, {"enabled": _word(hosts.new_hosts.crawl_enabled)})
    if action == "new-hosts":
        return Undo(action, {"limit": str(hosts.new_hosts.per_day)})
    return None


def _is_so(action: str, form: MultiDict[str, str]) -> bool:
    """Whether all is already as the action leaves it."""
    if "host" in form:
        status = relay_services().hosts.known(form["host"]).status
        return {"block": status is Status.BANNED, "unblock": status is not Status.BANNED}.get(action, False)
    if "domain" in form:
        banned = relay_services().db.read(is_banned, params.domain(form["domain"].strip()))
        return banned is (action == "ban-domain")
    found = relay_services().find_account(params.did(form.get("did", "").strip()))
    return found is None or (found[0].status == "takendown") is (action == "take-down")


def _word(flag: bool) -> str:
    return "true" if flag else "false"
