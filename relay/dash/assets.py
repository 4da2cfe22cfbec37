"""The style sheet and the script, held in memory and named by their content, so that browsers may keep them.

Read once, when the module is loaded. Knows nothing of pages.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Response, abort, url_for

FOLDER = Path(__file__).parent / "static"
TYPES = {"dash.css": "text/css", "dash.js": "text/javascript"}
FILES = {name: (FOLDER / name).read_bytes() for name in TYPES}
VERSIONS = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in FILES.items()}
KEEP = "public, max-age=31536000, immutable"


def asset(name: str) -> Response:
    """The style sheet and the script of the dashboard."""
    if name not in FILES:
        abort(404)
    response = Response(FILES[name], mimetype=TYPES[name])
    response.headers["Cache-Control"] = KEEP
    return response


def asset_url(name: str) -> str:
    """The address of a file, which is another one when its content is."""
    return url_for("dash.asset", name=name, v=VERSIONS[name])
