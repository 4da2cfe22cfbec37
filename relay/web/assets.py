"""Style sheets, scripts and their like: held in memory, and named by their content, so that browsers may keep them.

`SHARED` are those of all pages, served at `/static/`; the dashboard has a folder of its own. Only files that are there
when the relay starts are ever served. Must not know what is in them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Blueprint, Response, abort
from flask.typing import ResponseReturnValue

TYPES = {".css": "text/css", ".js": "text/javascript"}
KEEP = "public, max-age=31536000, immutable"

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": KEEP}


class Assets:
    """The files of a folder, which is read once."""

    def __init__(self, folder: Path) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in TYPES}
        self._versions = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}

    def answer(self, name: str) -> Response:
        """A file as it is sent. Aborts with 404."""
        if name not in self._files:
            abort(404)
        return Response(self._files[name], mimetype=TYPES[Path(name).suffix], headers=HEADERS)

    def version(self, name: str) -> str:
        """A word that is another one when the file's content is. Raises KeyError."""
        return self._versions[name]


SHARED = Assets(Path(__file__).parent / "static")

blueprint = Blueprint("assets", __name__)


@blueprint.get("/static/<name>")
def shared_asset(name: str) -> ResponseReturnValue:
    """The style sheets and scripts of the pages."""
    return SHARED.answer(name)


def shared_url(name: str) -> str:
    """The address of a shared file."""
    return f"/static/{name}?v={SHARED.version(name)}"
