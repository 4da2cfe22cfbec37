"""What a host's messages may look like, and how its stream is followed."""

from __future__ import annotations

from relay.atproto import drisl
from relay.atproto.events import Kind
from relay.conformance.network import error_frame
from relay.conformance.repository import frame, now
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Stage
from relay.conformance.verdict import Broken

INDEFINITE_MAP = b"\xbf"
BREAK = b"\xff"


@must("unknown-type", own_host=True)
def an_event_after_one_of_an_unknown_type_passes(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(lambda seq: frame("#weather", {"seq": seq, "did": account.did, "time": now()}))
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("unknown-type", own_host=True)
def a_message_of_an_unknown_op_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    header = drisl.encode({"op": 2, "t": "#identity"})
    account.send(lambda seq: header + drisl.encode({"seq": seq, "did": account.did, "time": now()}))
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an #identity under op 2 is passed on as an event")


@must("unknown-field")
def a_commit_with_a_field_that_nobody_knows_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.fields["mood"] = {"nested": [1, "two"]}
    stage.sends(account, event)


@must_not("unknown-field", own_host=True)
def a_commit_whose_rev_is_a_number_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    event.fields["rev"] = 5
    stage.refuses(account, event, "a commit whose rev is a number")


@must("unreadable", own_host=True)
def the_stream_goes_on_after_bytes_that_are_not_cbor(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(b"\xff\xfe this is not CBOR")
    stage.sends(account, account.repo.commit(account.repo.create()))


@must("unreadable", own_host=True)
def the_stream_goes_on_after_an_event_that_is_cut_off(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    broken = account.repo.commit(account.repo.create())
    account.host.send(lambda seq: broken.frame(seq)[:-20])
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("unreadable", own_host=True)
def an_event_with_bytes_behind_it_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    account.host.send(lambda seq: event.frame(seq) + b"\x00")
    stage.settled(account)
    stage.not_passed(event, "an event with bytes behind its end")


@must("message-size", own_host=True)
def the_stream_goes_on_after_a_message_over_5_mb(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(lambda seq: account.repo.identity_frame(seq, padding=bytes(5_000_001)))
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("message-size", own_host=True)
def a_message_over_5_mb_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(lambda seq: account.repo.identity_frame(seq, padding=bytes(5_000_001)))
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an #identity of over 5 MB passes")


@must("canonical")
def what_goes_out_is_canonical(stage: Stage) -> None:
    account = stage.account()
    stage.identity_comes(account)
    for message in stage.firehose.of(account.did):
        _, end = drisl.decode_prefix(message.data)
        drisl.decode(message.data[end:])


@must_not("canonical", own_host=True)
def an_event_with_a_key_twice_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    header = drisl.encode({"op": 1, "t": "#identity"})

    def make(seq: int) -> bytes:
        fields: list[tuple[str, str | int]] = [
            ("did", account.did),
            ("did", account.did),
            ("seq", seq),
            ("time", now()),
        ]
        return header + bytes([0xA0 + len(fields)]) + b"".join(drisl.encode(part) for pair in fields for part in pair)

    account.send(make)
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an #identity with `did` twice passes")


@must_not("canonical", own_host=True)
def an_event_of_indefinite_length_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    header = drisl.encode({"op": 1, "t": "#identity"})

    def make(seq: int) -> bytes:
        fields: dict[str, str | int] = {"did": account.did, "seq": seq, "time": now()}
        parts = b"".join(drisl.encode(part) for pair in fields.items() for part in pair)
        return header + INDEFINITE_MAP + parts + BREAK

    account.send(make)
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an #identity of indefinite length passes")


@must("host-seq", own_host=True)
def events_pass_whose_seqs_have_gaps(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    account.host.send(event.frame, seq=5_000)
    stage.passes(event)


@must_not("host-seq", own_host=True)
def an_event_under_a_seq_that_was_used_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    # Not of a commit, which its rev would tell.
    account.host.send(account.repo.identity_frame, seq=1)
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an event under a seq that was used passes")


@must_not("host-seq", own_host=True)
def an_event_without_a_seq_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(lambda _: frame("#identity", {"did": account.did, "time": now()}))
    stage.settled(account)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken("an event without a seq passes")


@must("host-resume", own_host=True)
def what_came_while_the_connection_was_away_is_fetched(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.host.hold(True)
    account.host.hang_up()
    missed = [account.repo.commit(account.repo.create()) for _ in range(3)]
    for event in missed:
        account.send(event)
    account.host.hold(False)
    for event in missed:
        stage.passes(event, "a commit that was sent while the relay was not connected")


@must_not("host-resume", own_host=True)
def events_come_again_after_a_reconnect(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    identity = stage.identity_comes(account)
    account.host.hang_up()
    last = account.repo.commit(account.repo.create())
    account.send(last)
    stage.passes(last)
    if stage.count(account.did, Kind.IDENTITY) != 1:
        raise Broken(f"the #identity of {identity.time} comes again after a reconnect")


@must("host-notices", own_host=True)
def the_stream_goes_on_after_a_notice(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(frame("#info", {"name": "OutdatedCursor", "message": "some events are gone"}))
    stage.sends(account, account.repo.commit(account.repo.create()))


@must("host-notices", own_host=True)
def a_host_that_closed_with_an_error_is_connected_again(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.host.hang_up(error_frame("ConsumerTooSlow"))
    event = account.repo.commit(account.repo.create())
    account.send(event)
    stage.passes(event, "a commit after the host closed with an error")


@must_not("host-notices", own_host=True)
def a_notice_of_a_host_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    account.send(frame("#info", {"name": "OutdatedCursor", "message": account.did}))
    stage.settled(account)
    if any(account.did.encode() in message.data and b"#info" in message.data for message in stage.firehose.messages):
        raise Broken("a host's #info is passed on to consumers")


@must("user-agent", own_host=True)
def the_relay_says_who_it_is(stage: Stage) -> None:
    host = stage.own_host()
    agent = stage.wait_for(lambda: host.user_agents, "the relay connects")[0]
    if not agent:
        raise Broken("it connects without a User-Agent")


@must_not("user-agent")
def the_directory_is_asked_without_a_name(stage: Stage) -> None:
    stage.account()
    if None in stage.directory.user_agents:
        raise Broken("the directory is asked without a User-Agent")
