"""Patches the standard library for gevent before any test module imports it.

The relay runs patched, so its tests do as well; `relay/atproto` is also checked unpatched,
in a fresh interpreter, by `tests/promises/test_19_what_is_loaded.py`.
"""

from gevent import monkey

monkey.patch_all()

from hypothesis import HealthCheck, settings  # noqa: E402

pytest_plugins = ["tests.support.fixtures", "tests.support.event_path"]

# How long an example takes says how busy the machine is.
settings.register_profile("any-machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
