"""The import of another relay's collection index: begun, stopped and looked at by admins.

zlay's route, as indigo has none. What runs is `upstream.backfill`'s; how far it is, is read from SQL. Must not know how
pages are asked for.
"""

from __future__ import annotations

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.kit.errors import ImportBusy
from relay.store import collection_imports
from relay.web import params
from relay.web.admin_api import authenticate, changed
from relay.web.errors import XrpcError, invalid
from relay.web.services import parts
from relay.web.views import backfill_view, progress_view

blueprint = Blueprint("backfill", __name__, url_prefix="/admin")
blueprint.before_request(authenticate)

COLLECTIONS_PER_PAGE = 1000


@blueprint.errorhandler(ImportBusy)
def busy(error: ImportBusy) -> ResponseReturnValue:
    """One import at a time."""
    return jsonify(error="BackfillRunning", message=error.detail), 409


@blueprint.get("/backfill-collections")
def show() -> ResponseReturnValue:
    """`source`, `limit`, `cursor`: the imports of collections; of one source, with each of its collections."""
    summaries = parts().db.read(collection_imports.summaries)
    if params.optional(request.args, "source") is None:
        return jsonify(backfills=[backfill_view(summary) for summary in summaries])
    source = _source().url
    found = next((summary for summary in summaries if summary.source == source), None)
    if found is None:
        raise XrpcError(404, "BackfillNotFound", "nothing was imported from this source")
    after = params.optional(request.args, "cursor") or ""
    if after:
        params.nsid(after, "cursor")
    limit = params.limit(request.args, default=COLLECTIONS_PER_PAGE, maximum=COLLECTIONS_PER_PAGE)
    rows = parts().db.read(collection_imports.progress, source, after, limit)
    view = backfill_view(found) | {"progress": [progress_view(row) for row in rows]}
    return jsonify(view | ({"cursor": rows[-1].nsid} if len(rows) == limit else {}))


@blueprint.post("/backfill-collections")
def begin() -> ResponseReturnValue:
    """`source`, `{"collections"}` (all when absent), or `stop=true`: import another relay's collection index."""
    source = _source()
    if params.flag(request.args, "stop", default=False):
        if not parts().backfill.end(source):
            raise XrpcError(400, "BackfillNotRunning", "nothing is being imported from this source")
        return changed("backfill-stop", forward=False, source=source.url)
    body = params.json_body(request.get_data() or b"{}")
    nsids = params.body_texts(body, "collections", most=collection_imports.MAX_COLLECTIONS)
    for nsid in nsids:
        params.nsid(nsid, "collections")
    parts().backfill.begin(source, nsids)
    return changed("backfill-begin", forward=False, source=source.url, collections=len(nsids) or "all")


def _source() -> Endpoint:
    try:
        return parse_endpoint(params.required(request.args, "source"))
    except SyntaxInvalid as error:
        raise invalid(f"source: {error}") from None
