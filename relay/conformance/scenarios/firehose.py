"""What consumers of the firehose get."""

from __future__ import annotations

import time
from itertools import pairwise

from relay.atproto import drisl
from relay.atproto.events import Commit, Info, StreamError
from relay.atproto.fields import MAX_SEQ
from relay.conformance.firehose import open_firehose, read, refusal, replay
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Stage
from relay.conformance.subject import SYNC
from relay.conformance.verdict import Broken, NotOffered

SECONDS = 20.0


def newest_seq(stage: Stage) -> int:
    """The seq of a commit that has just passed."""
    last = stage.last(stage.account().did, Commit)
    assert last is not None
    return last.seq


@must("messages")
def every_message_is_a_header_and_a_map(stage: Stage) -> None:
    stage.account()
    for data, _ in list(stage.firehose.messages):
        header, end = drisl.decode_prefix(data)
        if not isinstance(header, dict) or header.get("op") != 1 or not isinstance(header.get("t"), str):
            raise Broken(f"a header is {header!r}")
        payload = drisl.load(data[end:])
        if not isinstance(payload, dict) or "$type" in payload:
            raise Broken(f"the payload of a {header['t']!r} is not a map, or has a $type")


@must_not("messages")
def an_error_has_a_type(stage: Stage) -> None:
    messages = replay(stage.relay.firehose, MAX_SEQ, SECONDS)
    errors = [message.data for message in messages if b"FutureCursor" in message.data]
    if not errors:
        raise NotOffered("no error message could be brought about")
    header, _ = drisl.decode_prefix(errors[0])
    if header != {"op": -1}:
        raise Broken(f"the header of an error is {header!r}")


@must("seq")
def seqs_are_numbers_from_1_to_2_53(stage: Stage) -> None:
    if not 1 <= newest_seq(stage) <= MAX_SEQ:
        raise Broken("a seq is out of range")


@must_not("seq", alone=True)
def a_seq_falls_or_comes_twice(stage: Stage) -> None:
    newest_seq(stage)
    seqs = [seq for message in list(stage.firehose.messages) if (seq := getattr(message.event, "seq", None))]
    if any(after <= before for before, after in pairwise(seqs)):
        raise Broken("a seq is not above the one before it")


@must("live")
def without_a_cursor_what_comes_is_sent(stage: Stage) -> None:
    with open_firehose(stage.relay.firehose) as connection:
        newest_seq(stage)
        connection.recv(timeout=SECONDS)


@must_not("live")
def without_a_cursor_the_past_is_sent(stage: Stage) -> None:
    account = stage.account()
    past = stage.last(account.did, Commit)
    assert past is not None
    events = [message.event for message in replay(stage.relay.firehose, None, 1.0)]
    if any(isinstance(event, Commit) and event.seq <= past.seq for event in events):
        raise Broken("a consumer without a cursor gets events from before it came")


@must("cursor")
def cursor_0_gives_the_whole_window(stage: Stage) -> None:
    last = newest_seq(stage)
    seen = [
        seq for message in list(stage.firehose.messages) if (seq := getattr(message.event, "seq", 0)) <= last and seq
    ]
    replayed = {getattr(message.event, "seq", 0) for message in replay(stage.relay.firehose, 0, SECONDS, last)}
    # What was deleted or taken down since is not in it.
    hidden = {
        event.seq for seq in set(seen) - replayed if (event := _event(stage, seq)) and _is_hidden(stage, event.did)
    }
    missing = set(seen) - replayed - hidden
    if missing:
        raise Broken(f"cursor=0 lacks {len(missing)} of {len(seen)} events")


def _event(stage: Stage, seq: int) -> Commit | None:
    found = next((m.event for m in stage.firehose.messages if getattr(m.event, "seq", 0) == seq), None)
    return found if isinstance(found, Commit) else None


def _is_hidden(stage: Stage, did: str) -> bool:
    events = stage.firehose.events(did)
    return any(getattr(event, "status", None) in ("deleted", "takendown") for event in events)


@must("cursor")
def a_cursor_gives_what_is_after_it_in_order(stage: Stage) -> None:
    account = stage.account()
    first = stage.last(account.did, Commit)
    assert first is not None
    events = [account.repo.commit(account.repo.create()) for _ in range(5)]
    for event in events:
        account.send(event)
    last = stage.passes(events[-1])
    messages = replay(stage.relay.firehose, first.seq, SECONDS, last.seq)
    seqs = [seq for message in messages if (seq := getattr(message.event, "seq", None))]
    if seqs != sorted(set(seqs)):
        raise Broken("a replay is not in order")
    revs = [m.event.rev for m in messages if isinstance(m.event, Commit) and m.event.did == account.did]
    if revs != [event.rev for event in events]:
        raise Broken(f"of five commits after the cursor {len(revs)} came")


@must_not("cursor")
def a_cursor_gives_the_event_that_it_names(stage: Stage) -> None:
    first, last = newest_seq(stage), newest_seq(stage)
    messages = replay(stage.relay.firehose, first, SECONDS, last)
    seqs = [seq for message in messages if (seq := getattr(message.event, "seq", None))]
    if first in seqs or not seqs or min(seqs) < first:
        raise Broken("a consumer gets the event of its cursor again, or an older one")
    if any(isinstance(message.event, Info) for message in messages):
        raise Broken("a cursor in the window is told to be outdated")


@must("cursor-future")
def a_cursor_ahead_is_told_and_closed(stage: Stage) -> None:
    began = time.monotonic()
    messages = replay(stage.relay.firehose, newest_seq(stage) + 1_000_000_000, SECONDS)
    told = [message.event.error for message in messages if isinstance(message.event, StreamError)]
    if told != ["FutureCursor"]:
        raise Broken(f"a cursor ahead is answered by {told or 'no error'}")
    if time.monotonic() - began > SECONDS - 1:
        raise Broken("the connection stays open after the error")


@must_not("cursor-future")
def a_cursor_ahead_is_given_events(stage: Stage) -> None:
    messages = replay(stage.relay.firehose, newest_seq(stage) + 1_000_000_000, 2.0)
    if any(isinstance(message.event, Commit) for message in messages):
        raise Broken("a cursor ahead is given live events")


@must("client-frames")
def a_client_that_says_something_is_served_on(stage: Stage) -> None:
    with open_firehose(stage.relay.firehose) as connection:
        connection.send(b"hello")
        connection.send("hello")
        newest_seq(stage)
        connection.recv(timeout=SECONDS)


@must_not("client-frames")
def what_a_client_says_is_answered_or_passed(stage: Stage) -> None:
    account = stage.account()
    forged = account.repo.identity_frame(1)
    with open_firehose(stage.relay.firehose) as connection:
        connection.send(forged)
        behind = newest_seq(stage)
        while (seq := getattr((message := read(connection.recv(timeout=SECONDS))).event, "seq", 0)) < behind:
            if account.did.encode() in message.data:
                raise Broken(f"what a client sent comes out of the firehose, under seq {seq}")


@must("handshake")
def a_cursor_that_is_a_number_is_taken(stage: Stage) -> None:
    if (status := refusal(stage.relay.firehose, str(newest_seq(stage)))) is not None:
        raise Broken(f"a good cursor is refused with {status}")


@must_not("handshake")
def a_cursor_that_is_not_a_number_is_taken(stage: Stage) -> None:
    for cursor in ("abc", "-1"):
        if (status := refusal(stage.relay.firehose, cursor)) != 400:
            raise Broken(f"cursor={cursor} is answered by {status or 'an upgrade'}, not 400")


@must_not("handshake")
def a_request_without_an_upgrade_is_served(stage: Stage) -> None:
    if (status := stage.relay.get("subscribeRepos").status) != 426:
        raise Broken(f"a GET without an upgrade is answered by {status}, not 426")


@must_not("handshake")
def a_post_is_served(stage: Stage) -> None:
    if (status := stage.relay.request("POST", f"{SYNC}subscribeRepos", {}).status) != 405:
        raise Broken(f"a POST is answered by {status}, not 405")
