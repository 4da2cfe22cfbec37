"""Loops that go on whatever their work does, and calls into native threads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from relay.kit import background
from relay.kit.background import Loop, Stints, in_thread, in_turns, yield_hub


def test_a_pass_that_fails_is_told_of_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.01)
    passes: list[int] = []
    problems: list[str | None] = []
    done = Event()

    def work() -> None:
        problems.append(loop.problem)
        passes.append(1)
        if len(passes) == 1:
            raise ValueError("no")
        if len(passes) == 3:
            done.set()

    loop = Loop("the test", work, every=0.01)
    loop.start()
    assert done.wait(5)
    loop.stop()
    assert problems == [None, "the test: no", None] and not loop.running


def test_a_loop_waits_as_long_as_its_work_says_and_can_be_woken() -> None:
    passes = []

    def work() -> float:
        passes.append(1)
        return 3600.0

    loop = Loop("the test", work, every=0.0)
    loop.start()
    gevent.sleep(0.01)
    assert len(passes) == 1
    loop.wake()
    gevent.sleep(0.01)
    assert len(passes) == 2
    loop.stop()


def test_a_wake_during_a_pass_is_not_lost() -> None:
    passes = []
    inside, go_on = Event(), Event()

    def work() -> None:
        passes.append(1)
        inside.set()
        go_on.wait(5)

    loop = Loop("the test", work, every=3600.0)
    loop.start()
    assert inside.wait(5)
    loop.wake()
    go_on.set()
    gevent.sleep(0.02)
    assert len(passes) == 2
    loop.stop()


def test_a_stop_lets_a_pass_end_or_kills_it() -> None:
    ended = []

    def work() -> None:
        gevent.sleep(0.05)
        ended.append(1)

    patient = Loop("patient", work, every=3600.0)
    patient.start()
    gevent.sleep(0)
    patient.stop(timeout=5)
    assert ended == [1]
    hasty = Loop("hasty", work, every=3600.0)
    hasty.start()
    gevent.sleep(0)
    hasty.stop()
    gevent.sleep(0.1)
    assert ended == [1]


def test_a_loop_can_begin_with_a_wait() -> None:
    passes: list[int] = []
    loop = Loop("the test", lambda: passes.append(1), every=3600.0)
    loop.start(after=3600.0)
    gevent.sleep(0.01)
    assert passes == [] and loop.running
    loop.stop()


def test_what_a_thread_raises_is_raised_here_and_the_hub_goes_on() -> None:
    pool = ThreadPool(1)
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    def add(a: int, b: int) -> int:
        until = time.monotonic() + 30
        while len(ticks) <= 3 and time.monotonic() < until:
            get_original("time", "sleep")(0.01)
        return a + b

    ticking = gevent.spawn(tick)
    assert in_thread(pool, add, 1, b=2) == 3
    assert len(ticks) > 3
    with pytest.raises(ZeroDivisionError):
        in_thread(pool, lambda: 1 / 0)
    ticking.kill()
    pool.kill()


def busy_turns(take_turn: Callable[[], None], wait: Callable[[], object], workers: int = 1) -> int:
    """How many turns of 1 ms greenlets that always have work take while another comes to the end of `wait`."""
    turns, stopped = 0, False

    def work() -> None:
        nonlocal turns
        while not stopped:
            started = time.thread_time()
            while time.thread_time() - started < 0.001:
                pass
            turns += 1
            take_turn()

    working = [gevent.spawn(work) for _ in range(workers)]
    while turns < workers:
        yield_hub()
    before = turns
    wait()
    taken, stopped = turns - before, True
    gevent.joinall(working)
    return taken


def test_a_greenlet_that_yields_the_hub_lets_timers_run() -> None:
    assert busy_turns(yield_hub, lambda: gevent.sleep(0.002)) <= 10
    assert busy_turns(lambda: gevent.sleep(0), lambda: gevent.sleep(0.002)) >= 20


def test_many_greenlets_that_yield_the_hub_let_timers_run_and_are_all_served() -> None:
    assert busy_turns(yield_hub, lambda: gevent.sleep(0.002), workers=100) <= 15
    served: set[int] = set()

    def work(number: int) -> None:
        for _ in range(3):
            yield_hub()
        served.add(number)

    gevent.joinall([gevent.spawn(work, number) for number in range(100)], timeout=60)
    assert served == set(range(100))


def test_those_in_one_line_have_one_turn_between_them() -> None:
    order: list[str] = []

    def work(name: str, line: str | None) -> None:
        for _ in range(2):
            yield_hub(line)
            order.append(name)

    crowd = [gevent.spawn(work, "crowd", "line") for _ in range(50)]
    others = [gevent.spawn(work, "another", "other line"), gevent.spawn(work, "alone", None)]
    gevent.joinall([*crowd, *others], timeout=60)
    # Each of the others waits for one of the crowd at a time, and for none of it that came before.
    assert sorted(name for name in order[:12] if name != "crowd") == ["alone", "alone", "another", "another"]
    assert order.count("crowd") == 100


def test_a_greenlet_that_is_killed_in_a_line_holds_up_nobody() -> None:
    killed = [gevent.spawn(yield_hub, "line") for _ in range(3)]
    gevent.sleep(0)
    gevent.killall(killed[:2], block=False)
    yield_hub("line")
    killed[2].get(timeout=60)


def test_a_greenlet_that_is_killed_while_it_yields_holds_up_nobody() -> None:
    killed = [gevent.spawn(yield_hub) for _ in range(3)]
    gevent.sleep(0)
    gevent.killall(killed[:2], block=False)
    yield_hub()
    killed[2].get(timeout=60)


def test_a_greenlet_that_yields_the_hub_lets_sockets_be_read() -> None:
    ours, theirs = socket.socketpair()

    def echo() -> None:
        while data := theirs.recv(1):
            theirs.send(data)

    def ask() -> None:
        for _ in range(5):
            ours.send(b"x")
            assert ours.recv(1) == b"x"

    with ours, theirs:
        answering = gevent.spawn(echo)
        assert busy_turns(yield_hub, ask) <= 30
        ours.shutdown(socket.SHUT_WR)
        answering.join()


def test_long_work_in_turns_lets_timers_run() -> None:
    def busy(number: int) -> int:
        started = time.thread_time()
        while time.thread_time() - started < 0.0003:
            pass
        return number

    late = []

    def watch() -> None:
        while True:
            began = len(done)
            gevent.sleep(0.001)
            late.append(len(done) - began)

    done: list[int] = []
    watching = gevent.spawn(watch)
    for number in in_turns(range(300)):
        done.append(busy(number))
    watching.kill()
    assert done == list(range(300))
    # Some milliseconds of items at most, whatever the machine does meanwhile.
    assert len(late) > 10 and sorted(late)[len(late) // 2] <= 15


def test_long_work_in_pieces_lets_others_have_turns_and_counts_its_own_time_alone() -> None:
    stints, turns = Stints(), 0
    working = True

    def others() -> None:
        nonlocal turns
        while working:
            turns += 1
            gevent.sleep(0.001)

    waiting = gevent.spawn(others)
    began = time.perf_counter()
    while turns < 20:
        stints.pause()
    took = time.perf_counter() - began
    working = False
    assert 0 < stints.end() <= took
    stints = Stints()
    gevent.sleep(0.01)
    stints.pause()
    paused, waits = time.perf_counter(), gevent.spawn(gevent.sleep, 0.05)
    waits.join()
    assert stints.end() >= time.perf_counter() - paused
    waiting.join(timeout=60)


def test_long_work_rests_while_a_native_thread_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    sleep = gevent.sleep

    def rest(seconds: float) -> None:
        rests.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(gevent, "sleep", rest)
    monkeypatch.setattr(background, "TURNS_SECONDS", -1.0)
    stints, pool = Stints(), ThreadPool(1)
    stints.pause()
    assert rests == []
    go_on = get_original("threading", "Event")()
    calling = gevent.spawn(in_thread, pool, go_on.wait, 30)
    sleep(0)
    stints.pause()
    assert rests == [background.REST_SECONDS]
    go_on.set()
    calling.get(timeout=30)
    stints.pause()
    assert rests == [background.REST_SECONDS]
    pool.kill()
