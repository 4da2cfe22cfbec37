"""Which repos have records of a collection: the public list.

`listReposByCollection` is the lexicon's. Must not know how the index comes about.
"""

from __future__ import annotations

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from relay.store import collections
from relay.web import params
from relay.web.services import PREFIX, relay_services
from relay.web.xrpc import page

blueprint = Blueprint("collections", __name__)


@blueprint.get(f"{PREFIX}listReposByCollection")
def list_repos_by_collection() -> ResponseReturnValue:
    """`collection`, `limit`, `cursor`: active accounts with records of a collection."""
    nsid = params.nsid(params.required(request.args, "collection"), "collection")
    limit = params.limit(request.args, default=500, maximum=2000)
    found = relay_services().db.read(collections.list_repos, nsid, params.cursor(request.args), limit)
    return page("repos", [{"did": did} for _, did in found.repos], found.next_uid)
