"""Who signed a commit, and what the signed commit has to say."""

from __future__ import annotations

from relay.atproto.cid import Cid
from relay.conformance.identities import SigningKey, did_document
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Account, Stage, new_did
from relay.conformance.verdict import Broken

MINUTE_US = 60_000_000


def rotate(stage: Stage, account: Account) -> SigningKey:
    """Give an account a new key, at the directory alone; the old one is returned."""
    old, account.repo.key = account.repo.key, SigningKey()
    stage.directory.documents[account.did] = did_document(account.did, account.repo.key, account.host.url)
    return old


@must("signature")
def a_commit_of_the_accounts_key_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("signature")
def a_commit_of_another_key_is_passed(stage: Stage) -> None:
    account = stage.account()
    account.send(account.repo.commit(account.repo.create(), key=SigningKey()))
    stage.settled(account)
    stage.nothing_of(account.did, "a commit that another key signed", since=1)


@must_not("signature")
def a_sync_of_another_key_is_passed(stage: Stage) -> None:
    account = stage.account()
    account.repo.commit(account.repo.create(), key=SigningKey())
    account.send(account.repo.sync_frame)
    stage.settled(account)
    stage.nothing_of(account.did, "a #sync that another key signed", since=1)


@must_not("signature")
def a_first_commit_of_another_key_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    account.send(account.repo.commit(account.repo.create(), key=SigningKey()))
    stage.quiet(account.host)
    stage.nothing_of(account.did, "an unknown account's commit that another key signed")


@must("key-rotation")
def a_commit_of_a_new_key_passes_without_an_identity_event(stage: Stage) -> None:
    account = stage.account()
    rotate(stage, account)
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("key-rotation")
def a_commit_of_the_old_key_is_passed_after_the_rotation(stage: Stage) -> None:
    account = stage.account()
    old = rotate(stage, account)
    stage.sends(account, account.repo.commit(account.repo.create()))
    stage.refuses(
        account, account.repo.commit(account.repo.create(), key=old), "a commit of a key that was rotated away"
    )


@must_not("directory-away", alone=True)
def a_forged_commit_is_passed_while_the_directory_fails(stage: Stage) -> None:
    account = stage.account()
    stage.directory.failing.add(account.did)
    try:
        account.send(account.repo.identity_frame)
        account.send(account.repo.commit(account.repo.create(), key=SigningKey()))
        stage.quiet(account.host)
        stage.nothing_of(account.did, "while the directory fails, a commit that another key signed", since=1)
    finally:
        stage.directory.failing.discard(account.did)


@must("directory-away", alone=True)
def other_accounts_pass_while_the_directory_fails_on_one(stage: Stage) -> None:
    failing, other = stage.account(known=False), stage.account()
    stage.directory.failing.add(failing.did)
    try:
        failing.send(failing.repo.commit(failing.repo.create()))
        stage.sends(other, other.repo.commit(other.repo.create()))
    finally:
        stage.directory.failing.discard(failing.did)


@must("low-s")
def a_commit_of_a_p256_key_passes(stage: Stage) -> None:
    account = stage.account(curve="p256")
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("low-s")
def a_signature_with_the_high_s_is_passed(stage: Stage) -> None:
    account = stage.account()
    account.send(account.repo.commit(account.repo.create(), high_s=True))
    stage.settled(account)
    stage.nothing_of(account.did, "a signature with the high S", since=1)


@must_not("low-s")
def a_p256_signature_with_the_high_s_is_passed(stage: Stage) -> None:
    account = stage.account(curve="p256")
    account.send(account.repo.commit(account.repo.create(), high_s=True))
    stage.settled(account)
    stage.nothing_of(account.did, "a signature with the high S", since=1)


@must("event-equals-commit")
def an_event_that_says_what_its_commit_says_passes(stage: Stage) -> None:
    account = stage.account()
    passed = stage.sends(account, account.repo.commit(account.repo.create()))
    if passed.commit != account.repo.head:
        raise Broken("the event that passes names another commit")


@must_not("event-equals-commit")
def an_event_with_another_rev_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["rev"] = event.rev[:-1] + ("3" if event.rev[-1] != "3" else "4")
    stage.refuses(account, event, "an event whose rev is not its commit's")


@must_not("event-equals-commit")
def an_event_with_the_commit_of_another_account_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), changes={"did": new_did()})
    stage.refuses(account, event, "a commit of another DID")


@must_not("event-equals-commit")
def an_event_that_names_another_commit_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["commit"] = Cid.of_dag_cbor(b"another commit")
    stage.refuses(account, event, "an event whose commit is not the root of its CAR")


@must("commit-object")
def a_commit_with_a_link_to_the_one_before_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create(), changes={"prev": account.repo.head}))


@must_not("commit-object")
def a_commit_of_version_2_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), changes={"version": 2})
    stage.refuses(account, event, "a commit of version 2")


@must_not("commit-object")
def a_commit_without_a_tree_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), changes={"data": ...})
    stage.refuses(account, event, "a commit without `data`")


@must("rev-rises")
def commits_with_rising_revs_pass(stage: Stage) -> None:
    account = stage.account()
    for _ in range(3):
        stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("rev-rises")
def a_commit_is_passed_twice(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    stage.sends(account, event)
    account.send(event)
    stage.settled(account)
    if sum(commit.rev == event.rev for commit in stage.commits(account.did)) > 1:
        raise Broken("the same commit passes twice")


@must_not("rev-rises")
def a_commit_with_an_older_rev_is_passed(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create()))
    event = account.repo.commit(account.repo.create(), ahead_us=-60 * MINUTE_US)
    stage.refuses(account, event, "a commit with an older rev")


@must_not("rev-rises")
def a_rev_that_is_not_a_tid_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), changes={"rev": "zzzzzzzzzzzzz"})
    event.fields["rev"] = "zzzzzzzzzzzzz"
    stage.refuses(account, event, "a rev that is not a TID")


@must("rev-future")
def a_rev_a_minute_ahead_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create(), ahead_us=MINUTE_US))


@must_not("rev-future")
def a_rev_an_hour_ahead_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), ahead_us=60 * MINUTE_US)
    stage.refuses(account, event, "a rev that is an hour ahead")
