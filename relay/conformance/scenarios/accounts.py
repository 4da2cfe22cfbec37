"""What accounts are allowed, here and at their hosts, and in which order their events come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from relay.atproto.events import Account as AccountEvent
from relay.atproto.events import Commit, Kind
from relay.conformance.firehose import replay
from relay.conformance.repository import frame, now
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Account, Stage
from relay.conformance.verdict import Broken, NotOffered

REPLAY_SECONDS = 20.0


def tells(stage: Stage, account: Account, *, active: bool, status: str | None = None) -> None:
    """Have the host say that, for the stream and for whoever asks; and see it pass."""
    said = {} if status is None else {"status": status}
    account.host.statuses[account.did] = {"did": account.did, "active": active, **said}
    before = stage.count(account.did, Kind.ACCOUNT)
    account.send(lambda seq: account.repo.account_frame(seq, active=active, status=status))
    stage.wait_for(lambda: stage.count(account.did, Kind.ACCOUNT) > before, "the #account passes")
    told = stage.last(account.did, AccountEvent)
    if told is None or told.active is not active:
        raise Broken(f"an #account of active {active} passes with active {told and told.active}")
    if status is not None and told.status != status:
        raise Broken(f"the status {status} passes as {told.status}")


@contextmanager
def taken_down(stage: Stage, account: Account) -> Iterator[None]:
    """The relay's admin takes an account down, and restores it."""
    if not stage.relay.password:
        raise NotOffered("needs the admin's password")
    answer = stage.relay.admin("repo/takeDown", {"did": account.did})
    if answer.status == 404 and not answer.value:
        raise NotOffered("no route /admin/repo/takeDown")
    if answer.status != 200:
        raise Broken(f"a takedown is answered by HTTP {answer.status}: {answer.value}")
    try:
        yield
    finally:
        stage.relay.admin("repo/reverseTakedown", {"did": account.did})


@must("inactive")
def an_account_that_is_active_again_passes(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")
    tells(stage, account, active=True)
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("inactive")
def a_commit_of_a_deactivated_account_is_passed(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")
    stage.refuses(account, account.repo.commit(account.repo.create()), "a commit of a deactivated account")


@must_not("inactive")
def a_sync_of_a_suspended_account_is_passed(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="suspended")
    account.repo.commit(account.repo.create())
    account.send(account.repo.sync_frame)
    stage.settled(account)
    stage.nothing_of(account.did, "a #sync of a suspended account", since=1)


@must("account-event")
def each_status_passes(stage: Stage) -> None:
    for status in ("deactivated", "suspended", "takendown"):
        tells(stage, stage.account(), active=False, status=status)


@must("account-event")
def a_status_that_nobody_knows_passes(stage: Stage) -> None:
    tells(stage, stage.account(), active=False, status="hibernating")


@must("account-event")
def an_account_that_is_desynchronized_and_active_passes_commits(stage: Stage) -> None:
    account = stage.account()
    account.send(lambda seq: account.repo.account_frame(seq, active=True, status="desynchronized"))
    stage.wait_for(lambda: stage.count(account.did, Kind.ACCOUNT), "the #account passes")
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("account-event", own_host=True)
def an_account_event_without_active_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(
        lambda seq: frame("#account", {"did": account.did, "time": now(), "seq": seq, "status": "deactivated"})
    )
    stage.settled(account)
    if stage.count(account.did, Kind.ACCOUNT):
        raise Broken("an #account without `active` passes")


@must("status-here")
def a_takedown_is_told_and_its_end_as_well(stage: Stage) -> None:
    account = stage.account()
    with taken_down(stage, account):
        told = stage.wait_for(lambda: stage.last(account.did, AccountEvent), "the takedown is told")
        if told.active or told.status != "takendown":
            raise Broken(f"the takedown is told as active {told.active}, {told.status}")
    stage.wait_for(
        lambda: (end := stage.last(account.did, AccountEvent)) and end.active, "the end of the takedown is told"
    )


@must_not("status-here")
def a_host_says_active_of_an_account_that_is_taken_down_here(stage: Stage) -> None:
    account = stage.account()
    with taken_down(stage, account):
        stage.wait_for(lambda: stage.last(account.did, AccountEvent), "the takedown is told")
        account.send(lambda seq: account.repo.account_frame(seq, active=True))
        stage.quiet(account.host)
        told = stage.last(account.did, AccountEvent)
        if told is None or told.active:
            raise Broken("the host's `active` passes although the account is taken down here")


@must("status-learned")
def an_account_that_its_host_says_is_active_when_asked_is_told(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")
    # It came back, and the event that told so was missed.
    account.host.statuses[account.did] = {"did": account.did, "active": True}
    asked = account.host.requests
    event = account.repo.commit(account.repo.create())
    account.send(event)
    stage.settled(account)
    if account.host.requests == asked and not any(commit.rev == event.rev for commit in stage.commits(account.did)):
        raise NotOffered("it does not ask hosts, or not those on loopback")
    stage.passes(event, "a commit of an account that is active again at its host")
    stage.wait_for(
        lambda: (told := stage.last(account.did, AccountEvent)) and told.active, "its being active again is told"
    )
    kinds = [event.kind for event in stage.firehose.events(account.did) if event.kind is not Kind.IDENTITY]
    if kinds[-2:] != [Kind.ACCOUNT, Kind.COMMIT]:
        raise Broken("its commit comes before it is told that it is active")


@must_not("status-learned")
def an_account_that_is_still_inactive_is_told_active(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deactivated")
    stage.refuses(account, account.repo.commit(account.repo.create()), "a commit of a deactivated account")
    told = stage.last(account.did, AccountEvent)
    if told is None or told.active:
        raise Broken("an account is told active although its host says that it is not")


def replayed_commits(stage: Stage, account: Account) -> list[Commit]:
    """The commits of the account that a consumer gets who starts at the oldest event."""
    marker = stage.account(account.host)
    last = stage.last(marker.did, Commit)
    assert last is not None
    events = [message.event for message in replay(stage.relay.firehose, 0, REPLAY_SECONDS, last.seq)]
    return [event for event in events if isinstance(event, Commit) and event.did == account.did]


@must("hidden")
def what_was_taken_down_is_replayed_after_its_restoration(stage: Stage) -> None:
    account = stage.account()
    with taken_down(stage, account):
        stage.wait_for(lambda: stage.last(account.did, AccountEvent), "the takedown is told")
    stage.wait_for(
        lambda: (end := stage.last(account.did, AccountEvent)) and end.active, "the end of the takedown is told"
    )
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("hidden")
def a_commit_of_an_account_that_is_taken_down_is_replayed(stage: Stage) -> None:
    account = stage.account()
    with taken_down(stage, account):
        stage.wait_for(lambda: stage.last(account.did, AccountEvent), "the takedown is told")
        account.send(account.repo.commit(account.repo.create()))
        if replayed_commits(stage, account):
            raise Broken("a consumer that starts at the oldest event gets commits of an account that is taken down")
        stage.nothing_of(account.did, "a commit of an account that is taken down", since=1)


@must_not("hidden")
def a_commit_of_an_account_that_was_deleted_is_replayed(stage: Stage) -> None:
    account = stage.account()
    tells(stage, account, active=False, status="deleted")
    if replayed_commits(stage, account):
        raise Broken("a consumer that starts at the oldest event gets commits of an account that was deleted")


@must("order")
def a_hundred_commits_come_in_order(stage: Stage) -> None:
    account = stage.account()
    events = [account.repo.commit(account.repo.create()) for _ in range(100)]
    for event in events:
        account.send(event)
    stage.passes(events[-1], "the last of a hundred commits")
    revs = [commit.rev for commit in stage.commits(account.did)][1:]
    if revs != [event.rev for event in events]:
        raise Broken(f"of a hundred commits {len(revs)} came, or in another order")


@must_not("order")
def an_account_whose_document_cannot_be_had_stops_others(stage: Stage) -> None:
    waiting = stage.account(known=False)
    del stage.directory.documents[waiting.did]
    waiting.send(waiting.repo.commit(waiting.repo.create()))
    other = stage.account(waiting.host)
    stage.sends(other, other.repo.commit(other.repo.create()))
