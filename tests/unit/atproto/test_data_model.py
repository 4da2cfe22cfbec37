"""The data model's interop vectors: how values are encoded, and for each invalid one whose business it is.

A relay reads records as DRISL only. The JSON form is for the tests that build records from vectors; what a `$type` or a
blob must look like is for those who read records, and a relay passes it on.
"""

from base64 import b64decode
from typing import Any

import pytest

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven, verify_commit
from relay.atproto.crypto import parse_multikey
from relay.atproto.drisl import decode, encode
from relay.atproto.errors import CidError
from tests.support import interop
from tests.support.repo import EPOCH_US, RepoBuilder, SigningKey, account_did, create

# JSON only: in DRISL links and bytes are types of their own, so there is nothing to refuse.
JSON_FORM = {
    "bytes with wrong field type",
    "bytes with extra fields",
    "link with wrong field type",
    "link with bogus CID",
    "link with extra fields",
}
# Sound DRISL that no record should hold: the data model leaves floats to be tolerated, the rest to lexicons.
PASSED_ON = {
    "float",
    "record with $type null",
    "record with $type wrong type",
    "record with empty $type string",
    "blob with string size",
    "blob with missing key",
}
REFUSED = {"top-level not an object"}


def invalid(notes: set[str]) -> list[Any]:
    vectors = interop.vectors("data-model/data-model-invalid.json")
    return [pytest.param(vector["json"], id=vector["note"]) for vector in vectors if vector["note"] in notes]


def from_json(value: Any) -> Any:
    """The value that the data model's JSON form means. ValueError or CidError for a link or bytes that are none."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    special = value.keys() & {"$link", "$bytes"}
    if not special:
        return {key: from_json(item) for key, item in value.items()}
    (text,) = value.values()
    if not isinstance(text, str):
        raise ValueError(f"{special} of {type(text)}")
    return Cid.parse(text) if "$link" in special else b64decode(text + "==")


def verify(record: Any) -> str | None:
    """As if an account had posted it: why it is not passed on, or None."""
    repo = RepoBuilder(account_did(1), SigningKey.create())
    event = frames.decode(repo.commit(create("com.example.record/self", encode(record))).frame(1))
    assert isinstance(event, frames.Commit)
    outcome = verify_commit(event, parse_multikey(repo.key.multikey), EPOCH_US + 10**12)
    return outcome.reason if isinstance(outcome, Unproven) else None


@pytest.mark.parametrize("vector", interop.vectors("data-model/data-model-fixtures.json"))
def test_fixtures_have_their_bytes_and_cid(vector: dict[str, Any]) -> None:
    value, data = from_json(vector["json"]), b64decode(vector["cbor_base64"] + "==")
    assert encode(value) == data
    assert decode(data) == value
    assert str(Cid.of_dag_cbor(data)) == vector["cid"]
    assert verify(value) is None


@pytest.mark.parametrize(
    "vector", interop.vectors("data-model/data-model-valid.json"), ids=lambda vector: vector["note"]
)
def test_valid_records_pass(vector: dict[str, Any]) -> None:
    value = from_json(vector["json"])
    assert decode(encode(value)) == value
    assert verify(value) is None


@pytest.mark.skipif(not interop.vectors("data-model/data-model-invalid.json"), reason="RELAY_INTEROP_DIR is not set")
def test_every_invalid_vector_is_somebodys_business() -> None:
    assert {
        vector["note"] for vector in interop.vectors("data-model/data-model-invalid.json")
    } == JSON_FORM | PASSED_ON | REFUSED


@pytest.mark.parametrize("value", invalid(REFUSED))
def test_invalid_as_a_record(value: Any) -> None:
    assert verify(from_json(value)) == "record-malformed"


@pytest.mark.parametrize("value", invalid(JSON_FORM))
def test_invalid_in_json_only(value: Any) -> None:
    with pytest.raises((ValueError, CidError)):
        from_json(value)


@pytest.mark.parametrize("value", invalid(PASSED_ON))
def test_invalid_for_lexicons_only(value: Any) -> None:
    assert verify(from_json(value)) is None
