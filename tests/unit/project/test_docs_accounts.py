"""`docs/accounts.md` lists every cause that the account's page can give, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from relay.web import account_report

ROOT = Path(__file__).parents[3]


def test_every_cause_is_documented_once() -> None:
    documented = re.findall(
        r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "accounts.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    source = (ROOT / "relay" / "web" / "account_report.py").read_text(encoding="utf-8")
    given = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source)) | account_report._IDENTITY.keys()
    assert len(documented) == len(set(documented))
    assert set(documented) == given
