"""Fuzzing: nothing but a listed refusal comes out of a parser, whatever goes in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relay.atproto import car, frames
from tests.fuzz import targets
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, did_document, update

ROOT = Path(__file__).parents[2]


def seeds() -> dict[str, list[bytes]]:
    """Valid inputs of each kind, for the fuzzer to start from."""
    repo = RepoBuilder(account_did(1), SigningKey.create())
    paths = [f"app.bsky.feed.post/3k{'abcdefghij'[number]}{'a' * number}" for number in range(10)]
    commits = [
        repo.commit(create(paths[0], {"text": "a", "n": [1, -1, 1.5, None, True, b"b"]})),
        repo.commit(*(create(path, {"text": path}) for path in paths[1:])),
        repo.commit(update(paths[3], {"text": "new"}), delete(paths[4])),
        repo.commit(update(paths[9], {"text": "new"})),
        repo.commit(delete(paths[9])),
    ]
    raw = [commit.frame(seq) for seq, commit in enumerate(commits, 1)]
    raw += [repo.sync_frame(4), repo.identity_frame(5, "user.test"), repo.account_frame(6, active=False, status="x")]
    raw += [frames.error_frame("FutureCursor", ""), frames.info_frame("OutdatedCursor", "")]
    cars = [event.blocks for event in map(frames.decode, raw) if isinstance(event, frames.Commit | frames.Sync)]
    blocks = [block for content in map(car.parse, cars) for block in content.blocks.values()]
    document = json.dumps(did_document(targets.DID, repo.key, "https://pds.example.com")).encode()
    return {
        "value": blocks,
        "frame": raw,
        "peek": raw,
        "skim": [*blocks, *(frame[15:] for frame in raw)],
        "car": cars,
        "node": [block for block in blocks if block.startswith(b"\xa2ae")],
        "commit": [block for block in blocks if block.startswith(b"\xa6cdid")],
        "did-document": [document],
    }


@pytest.mark.parametrize("name", targets.TARGETS)
def test_fuzz(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for number, seed in enumerate(seeds()[name]):
        targets.run(name, seed)
        (tmp_path / f"seed-{number}").write_bytes(seed)
    pytest.importorskip("atheris")
    # The option is unknown when the whole collection runs: pytest reads this folder's conftest.py too late then.
    seconds = request.config.getoption("fuzz_seconds", 60)
    limits = [
        f"-max_total_time={seconds // len(targets.TARGETS)}",
        "-max_len=16384",
        "-timeout=5",
        "-rss_limit_mb=1024",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.targets", name, *limits, f"-artifact_prefix={tmp_path}/finding-", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    print(*done.stderr.splitlines()[-1:], sep="\n")
    assert done.returncode == 0, done.stderr[-4000:]
