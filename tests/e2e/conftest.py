"""A reference network for all end-to-end tests, and a relay for each; skipped where the network is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.browser import DESKTOP, Browser, StartBrowser, Window
from tests.e2e.consumers import Consumer
from tests.e2e.network import MODULES, ReferenceNetwork
from tests.support.relay_process import RelayProcess


@pytest.fixture(scope="session")
def running_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceNetwork]:
    """A PLC directory for the whole run."""
    if not MODULES.exists():
        pytest.skip("the reference network is not installed; tests/e2e/install.sh does it")
    network = ReferenceNetwork(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture
def network(running_network: ReferenceNetwork) -> Iterator[ReferenceNetwork]:
    """A PLC directory and two PDSs that nobody has used before: a relay asks a new host for all that it ever sent."""
    running_network.start_pds(2)
    yield running_network
    running_network.stop_pds()


@pytest.fixture
def relay(tmp_path: Path, network: ReferenceNetwork) -> Iterator[RelayProcess]:
    """A relay that has been started on the network's PLC directory and is not yet subscribed to anyone."""
    relay = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": network.plc})
    relay.start()
    yield relay
    relay.close()


@pytest.fixture
def watch(network: ReferenceNetwork) -> Iterator[Callable[[str], list[Consumer]]]:
    """Start both consumers, from cursor 0, on the relay or PDS at an address."""
    started: list[Consumer] = []

    def start(address: str) -> list[Consumer]:
        pair = [Consumer.reference(address, network.plc), Consumer.python(address)]
        started.extend(pair)
        return pair

    yield start
    for consumer in started:
        consumer.close()


@pytest.fixture
def start_browser(tmp_path: Path) -> Iterator[StartBrowser]:
    """Starts browsers that are closed after the test."""
    with ExitStack() as started:

        def start(window: Window = DESKTOP, *, script: bool = True) -> Browser:
            folder = tmp_path / f"browser-{window.name}"
            folder.mkdir()
            browser = Browser(folder, window, script=script)
            started.callback(browser.close)
            return browser

        yield start
