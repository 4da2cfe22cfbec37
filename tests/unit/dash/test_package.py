"""Templates, style sheet and script are part of the package: an installed relay has them, too."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "relay" / "dash"


def test_every_file_is_packaged() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["relay.dash"].split(", ")
    packaged = {path for pattern in patterns for path in FOLDER.glob(pattern)}
    files = {path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packaged == files and len(files) >= 10
