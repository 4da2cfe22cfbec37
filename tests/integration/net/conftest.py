"""Hosts on loopback, and a certificate for those with TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificate import make_certificate
from tests.support.fake_relay import pds

__all__ = ["pds"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")
