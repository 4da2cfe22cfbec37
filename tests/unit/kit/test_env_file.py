from __future__ import annotations

from pathlib import Path

import pytest

from relay.kit.env_file import environment_with, read_env_file
from relay.kit.errors import ConfigError


def test_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("# a comment\nexport LOG_LEVEL='debug'\nRELAY_HOSTS=a.example,b.example # two\n\n")
    assert read_env_file(path) == {"LOG_LEVEL": "debug", "RELAY_HOSTS": "a.example,b.example"}
    monkeypatch.setenv("LOG_LEVEL", "warn")
    assert environment_with(path)["LOG_LEVEL"] == "warn"
    path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"\.env:1"):
        read_env_file(path)
    with pytest.raises(ConfigError):
        read_env_file(tmp_path / "missing")
