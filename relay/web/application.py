"""The Flask application: routes gathered and counted, errors in one form, the headers that every answer carries.

`create_app` is called by `app` with the relay's parts, and by tests. Must not know what any route does.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
from prometheus_flask_exporter import PrometheusMetrics

from relay.net.http import SERVER
from relay.web import account_page, admin_api, assets, errors, firehose, health, host_page, xrpc
from relay.web.front_page import FrontPage
from relay.web.http_input import MAX_BODY_BYTES
from relay.web.public_page import error_as_page
from relay.web.services import EXTENSION, RelayServices, Services

STREAM_PATHS = r"(/xrpc/com\.atproto\.sync\.subscribeRepos|/subscribe)$"

CORS = {
    "Access-Control-Allow-Origin": "*",
    # Clients of the network add headers of their own to every request; the star does not stand for Authorization.
    "Access-Control-Allow-Headers": "*, Origin, Content-Type, Accept, Authorization",
    "Access-Control-Expose-Headers": "Retry-After",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Max-Age": "86400",
}


def create_app(services: RelayServices, pages: Iterable[Blueprint] = (), more: Iterable[Blueprint] = ()) -> Flask:
    """The WSGI application of a relay, with `more` routes of other rooms. `pages` are for people who are logged in:
    other origins may not read them.
    """
    modules = (xrpc, firehose, host_page, account_page, admin_api, health)
    return application(services, [*(module.blueprint for module in modules), *more], pages)


def application(services: Services, blueprints: Iterable[Blueprint], without_cors: Iterable[Blueprint] = ()) -> Flask:
    """A WSGI application over `services` with these routes; pages of any origin read all but those `without_cors`."""
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = services
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    track_requests(app)
    guarded = list(without_cors)
    # Nor the admin API, to which browsers add the password that they remember.
    closed = ("/admin", *(str(blueprint.url_prefix) for blueprint in guarded))
    for blueprint in (*blueprints, *guarded):
        app.register_blueprint(blueprint)
    app.register_blueprint(assets.blueprint)
    prepare_templates(app)
    front = FrontPage(services)
    app.add_url_rule("/", view_func=front.show, endpoint="front")
    if isinstance(services, RelayServices):
        app.add_url_rule("/crawl", view_func=front.crawl, endpoint="crawl", methods=["POST"])
    app.before_request(answer_preflight)
    app.after_request(partial(add_headers, closed))
    # What is added last comes first.
    app.after_request(error_as_page)
    errors.register(app)
    return app


def prepare_templates(app: Flask) -> None:
    """All templates compiled: to compile one takes longer than the hub may wait."""
    app.jinja_env.globals["shared_url"] = assets.shared_url
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)


def answer_preflight() -> ResponseReturnValue | None:
    """A browser asks before it sends: every method and origin is welcome."""
    return Response(status=204) if request.method == "OPTIONS" else None


def add_headers(without_cors: tuple[str, ...], response: Response) -> Response:
    """Every answer says what runs here; those of paths that do not begin `without_cors` are for pages of any origin."""
    response.headers["Server"] = SERVER
    # By path, since an error may come before a route is found.
    if not request.path.startswith(without_cors):
        response.headers.update(CORS)
    return response


def track_requests(app: Flask) -> None:
    """Count and time the requests of `app` by route.

    By rule, since paths come from outside and have no bound; without the streams, whose requests last for days.
    """
    PrometheusMetrics(app, path=None, defaults_prefix="relay", group_by="url_rule", excluded_paths=STREAM_PATHS)
