"""`docs/reference.md` lists every reason of the relay's own errors that no other document lists, and no other; and what
routes call their errors.
"""

from __future__ import annotations

import re
from pathlib import Path

from relay.kit import errors
from relay.kit.errors import IdentityError, RelayError

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_every_reason_of_an_error_is_documented_once() -> None:
    table = REFERENCE.partition("<!-- reasons -->")[2].partition("<!-- /reasons -->")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    # Drops have a document of their own.
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RelayError)]
    told = " ".join(kind.__doc__ or "" for kind in found if kind is not IdentityError)
    made = re.findall(r'__init__\("([a-z-]+)"', Path(errors.__file__).read_text(encoding="utf-8"))
    assert len(documented) == len(set(documented))
    assert set(documented) == {*re.findall(r"`([a-z]+(?:-[a-z]+)+)`", told), *made}


def test_every_name_of_an_error_that_routes_answer_is_documented() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay").rglob("*.py"))
    raised = re.findall(r'(?:XrpcError\(\s*\d{3}|Refused\(\s*"[a-z-]+"),\s*"(\w+)"', code)
    by_status = re.findall(r'\b[45]\d\d: "([A-Z]\w+)"', code)
    answered = re.findall(r'(?:error_response\(\d{3}, |jsonify\(error=)"(\w+)"', code)
    names = {*raised, *by_status, *answered}
    assert len(names) > 30
    answers = REFERENCE.partition("### Answers")[2].partition("\n## ")[0]
    assert {name for name in names if f"`{name}`" not in answers} == set()
