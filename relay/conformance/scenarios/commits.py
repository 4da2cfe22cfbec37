"""What a commit and a `#sync` say, and how large they may be."""

from __future__ import annotations

from relay.atproto import drisl
from relay.atproto.cid import Cid
from relay.atproto.events import Commit, Sync
from relay.conformance.repository import POSTS, CommitEvent, Write, car_of
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Account, Stage
from relay.conformance.verdict import Broken

MAX_BLOCKS = 2_000_000
MAX_RECORD = 1_000_000
MAX_OPS = 200


def record_of(size: int) -> bytes:
    """A record whose block has `size` bytes."""
    frame = len(drisl.encode({"$type": POSTS, "data": bytes(size)})) - size
    return drisl.encode({"$type": POSTS, "data": bytes(size - frame)})


def filled_to(account: Account, size: int) -> CommitEvent:
    """A commit with a CAR of so many bytes, of records of which none is too large."""
    event = account.repo.commit(account.repo.create(record_of(900_000)), account.repo.create(record_of(900_000)))
    # An unrelated block makes up for the rest: two bytes of length and the CID come with it.
    rest = size - len(event.car) - 39
    block = bytes(rest)
    event.blocks[Cid.of_raw(block)] = block
    assert len(event.car) == size
    return event


@must("commit")
def a_creation_passes_block_by_block(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create()))


@must("commit")
def an_update_and_a_deletion_pass(stage: Stage) -> None:
    account = stage.account()
    first, second = (account.repo.create() for _ in range(2))
    stage.sends(account, account.repo.commit(first, second))
    changed = Write("update", first.path, {"$type": POSTS, "text": "changed"})
    passed = stage.sends(account, account.repo.commit(changed, Write("delete", second.path, None)))
    if [op.action for op in passed.ops] != ["update", "delete"]:
        raise Broken("the operations are others than those that were sent")


@must_not("commit", own_host=True)
def a_commit_without_a_rev_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    rev = event.rev
    event.fields["rev"] = ...
    account.send(event)
    stage.settled(account)
    if any(commit.commit == event.root or commit.rev == rev for commit in stage.commits(account.did)):
        raise Broken("a commit without a rev passes")


@must("commit-old-fields")
def a_commit_that_says_too_big_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["tooBig"] = True
    stage.sends(account, event)


@must("commit-old-fields")
def a_commit_that_names_blobs_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["blobs"] = [Cid.of_raw(b"a picture")]
    stage.sends(account, event)


@must_not("commit-old-fields", own_host=True)
def a_commit_whose_ops_are_a_map_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    event.fields["ops"] = {"0": event.ops[0]}
    stage.refuses(account, event, "a commit whose ops are a map")


@must("blocks-size")
def blocks_of_2_000_000_bytes_pass(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, filled_to(account, MAX_BLOCKS))


@must_not("blocks-size", own_host=True)
def blocks_of_one_byte_more_are_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    stage.refuses(account, filled_to(account, MAX_BLOCKS + 1), "a commit with 2,000,001 bytes of blocks")


@must("record-size")
def a_record_of_1_000_000_bytes_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create(record_of(MAX_RECORD))))


@must_not("record-size", own_host=True)
def a_record_of_one_byte_more_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create(record_of(MAX_RECORD + 1)))
    stage.refuses(account, event, "a record of 1,000,001 bytes")


@must("ops-count")
def a_commit_with_200_operations_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(*[account.repo.create() for _ in range(MAX_OPS)]))


@must("ops-count")
def a_commit_without_operations_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit())


@must_not("ops-count")
def a_commit_with_201_operations_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(*[account.repo.create() for _ in range(MAX_OPS + 1)])
    stage.refuses(account, event, "a commit with 201 operations")


@must("chain")
def a_commit_whose_since_is_null_follows_by_its_prev_data(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["since"] = None
    stage.sends(account, event)


@must_not("chain")
def a_commit_with_another_prev_data_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["prevData"] = Cid.of_dag_cbor(b"another tree")
    stage.refuses(account, event, "a commit that does not follow from its prevData")


@must("sync")
def a_sync_passes(stage: Stage) -> None:
    account = stage.account()
    account.repo.commit(account.repo.create())
    account.send(account.repo.sync_frame)
    rev = account.repo.rev
    stage.wait_for(lambda: (found := stage.last(account.did, Sync)) and found.rev == rev, "the #sync passes")


@must_not("sync", own_host=True)
def a_sync_without_its_commit_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.repo.commit(account.repo.create())
    head = account.repo.head
    assert head is not None
    account.send(lambda seq: account.repo.sync_frame(seq, blocks=car_of([head], [])))
    stage.settled(account)
    stage.nothing_of(account.did, "a #sync whose CAR has no commit", since=1)


@must("sync-rollback")
def a_commit_after_a_rolled_back_sync_passes(stage: Stage) -> None:
    account = stage.account()
    old = account.repo.sync_frame(0)
    stage.sends(account, account.repo.commit(account.repo.create()))
    rolled_back(account, old)
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("sync-rollback")
def a_sync_of_an_older_rev_is_passed(stage: Stage) -> None:
    account = stage.account()
    old = account.repo.sync_frame(0)
    stage.sends(account, account.repo.commit(account.repo.create()))
    rolled_back(account, old)
    stage.settled(account)
    if stage.last(account.did, Sync):
        raise Broken("a #sync of an older rev passes")


def rolled_back(account: Account, old: bytes) -> None:
    """Send a former `#sync` again, under a new seq."""
    header = len(drisl.encode({"op": 1, "t": "#sync"}))
    fields = drisl.decode(old[header:])
    assert isinstance(fields, dict)
    account.send(lambda seq: old[:header] + drisl.encode({**fields, "seq": seq}))


@must("resync")
def after_a_gap_a_sync_and_what_follows_on_it_pass(stage: Stage) -> None:
    account = stage.account()
    # This one the relay never sees.
    account.repo.commit(account.repo.create())
    account.repo.commit(account.repo.create())
    account.send(account.repo.sync_frame)
    rev = account.repo.rev
    stage.wait_for(lambda: (found := stage.last(account.did, Sync)) and found.rev == rev, "a #sync after a gap passes")
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("resync")
def a_commit_that_was_missed_is_passed_after_a_sync(stage: Stage) -> None:
    account = stage.account()
    missed = account.repo.commit(account.repo.create())
    account.repo.commit(account.repo.create())
    account.send(account.repo.sync_frame)
    stage.refuses(account, missed, "a commit from before the #sync that came since")
    if not isinstance(stage.last(account.did, Commit), Commit):
        raise Broken("the account's first commit is gone")
