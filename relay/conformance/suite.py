"""Plays the scenarios against a relay, many at a time, and says of each rule whether it is kept.

Called by `relay conform`. A rule is broken when one of its scenarios is, and not offered when none could be played. A
relay that ends is started again for the scenarios that were not over, each of which then plays alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from relay.conformance import rules
from relay.conformance.firehose import Watcher
from relay.conformance.network import Directory, FakeHost
from relay.conformance.rules import Rule
from relay.conformance.scenario import Scenario
from relay.conformance.stage import Stage
from relay.conformance.subject import Subject, SubjectError
from relay.conformance.verdict import Broken, NotOffered, RelayEnded, Verdict

AT_ONCE = 12
# How long a relay may take for one thing. Nothing here takes a second where a machine has a core to spare.
PATIENCE_SECONDS = 15.0
SHARED_HOSTS = 4
CONNECT_SECONDS = 60.0
# How long it takes until the end of a relay that breaks a connection off shows at the firehose as well.
ENDING_SECONDS = 1.0


class Played(NamedTuple):
    """How a scenario went. `detail` is for people; `seconds` is how long it took."""

    scenario: Scenario
    verdict: Verdict
    detail: str
    seconds: float


class RuleResult(NamedTuple):
    """What the relay does about a rule, as its scenarios show."""

    rule: Rule
    verdict: Verdict
    played: tuple[Played, ...]


class Suite:
    """Plays scenarios on relays that `start` makes anew, one after the other. `on_played` is called after each."""

    def __init__(
        self,
        directory: Directory,
        start: Callable[[], Subject],
        on_played: Callable[[Played], None] = lambda _: None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._directory = directory
        self._start = start
        self._on_played = on_played
        self._patience = patience
        self._lock = threading.Lock()
        self._played: dict[Scenario, Played] = {}
        self._interrupted: list[Scenario] = []

    def play(self, scenarios: Sequence[Scenario]) -> list[Played]:
        """How each went, in their order. Raises SubjectError when the relay cannot be tested."""
        left = list(scenarios)
        while left:
            self._interrupted.clear()
            self._session(left)
            suspects = list(self._interrupted)
            if len(left) == 1 and suspects:
                self._enter(Played(left[0], Verdict.BROKEN, "the relay, or its firehose, ends", 0.0))
            elif suspects:
                for suspect in suspects:
                    self.play([suspect])
            left = [scenario for scenario in scenarios if scenario not in self._played]
        return [self._played[scenario] for scenario in scenarios]

    def _session(self, scenarios: Sequence[Scenario]) -> None:
        """Start a relay with hosts of its own, and play what can be played before it ends."""
        with ExitStack() as running:
            subject = self._start()
            running.callback(subject.close)
            own = [_started(running) for scenario in scenarios if scenario.own_host]
            shared = [_started(running) for _ in range(SHARED_HOSTS)]
            subject.connect_to([host.hostname for host in [*shared, *own]])
            _wait_connected([*shared, *own])
            watcher = Watcher(subject.firehose)
            running.callback(watcher.close)
            stage = Stage(subject, watcher, self._directory, shared, own, self._patience)
            _check_directory(stage)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                together = [scenario for scenario in scenarios if not scenario.alone]
                list(pool.map(lambda scenario: self._one(scenario, stage), together))
            for scenario in scenarios:
                if scenario.alone:
                    self._one(scenario, stage)

    def _one(self, scenario: Scenario, stage: Stage) -> None:
        if stage.firehose.ended:
            return
        began = time.monotonic()
        verdict, detail = Verdict.KEPT, ""
        try:
            scenario.play(stage)
        except RelayEnded:
            pass
        except NotOffered as reason:
            verdict, detail = Verdict.NOT_OFFERED, str(reason)
        except Broken as reason:
            verdict, detail = Verdict.BROKEN, str(reason)
        # What a relay answers may be of a form that nobody thought of.
        except Exception as error:
            if isinstance(error, OSError):
                time.sleep(ENDING_SECONDS)
            verdict, detail = Verdict.BROKEN, f"{type(error).__name__}: {error}"
        if stage.firehose.ended:
            with self._lock:
                self._interrupted.append(scenario)
        else:
            self._enter(Played(scenario, verdict, detail, time.monotonic() - began))

    def _enter(self, played: Played) -> None:
        with self._lock:
            self._played[played.scenario] = played
            self._on_played(played)


def by_rule(played: Iterable[Played]) -> list[RuleResult]:
    """The results in the order of the rules."""
    of_rule: dict[str, list[Played]] = {}
    for one in played:
        of_rule.setdefault(one.scenario.rule, []).append(one)
    return [
        RuleResult(rule, _verdict(of_rule[name]), tuple(of_rule[name]))
        for name, rule in rules.RULES.items()
        if name in of_rule
    ]


def _verdict(played: Sequence[Played]) -> Verdict:
    verdicts = {one.verdict for one in played}
    if Verdict.BROKEN in verdicts:
        return Verdict.BROKEN
    return Verdict.KEPT if Verdict.KEPT in verdicts else Verdict.NOT_OFFERED


def _started(running: ExitStack) -> FakeHost:
    host = FakeHost()
    host.start()
    running.callback(host.stop)
    running.callback(host.hang_up)
    return host


def _wait_connected(hosts: Sequence[FakeHost]) -> None:
    deadline = time.monotonic() + CONNECT_SECONDS
    while missing := [host for host in hosts if not host.connected]:
        if time.monotonic() > deadline:
            raise SubjectError(f"it has not connected to {len(missing)} of {len(hosts)} hosts on loopback")
        time.sleep(0.05)


def _check_directory(stage: Stage) -> None:
    """One account whose first commit passes: without that, nothing could be tested."""
    account = stage.account(known=False)
    first = account.repo.commit(account.repo.create())
    account.send(first)
    try:
        stage.passes(first, "the first commit of an account")
    except (Broken, RelayEnded) as reason:
        where = f"the directory at {stage.directory.url}"
        told = f"it asks {where}" if stage.directory.asked[account.did] else f"it never asked {where}"
        raise SubjectError(f"{reason}; {told}") from None
