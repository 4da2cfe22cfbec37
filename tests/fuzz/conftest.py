"""How long to fuzz: a minute as part of the tests, as long as one likes by `make fuzz SECONDS=…`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=int, default=60, help="seconds to fuzz for, all targets together")
