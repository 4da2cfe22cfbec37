"""Work on hosts: one at a time on each, on a bounded number of them, and whatever comes of it ends."""

from __future__ import annotations

import gevent
from gevent.event import Event

from relay.healing.host_tasks import HostTasks
from relay.hosts.host import Host
from tests.support.hosts import known_host


def test_a_host_is_worked_on_once_and_few_at_a_time() -> None:
    begun: list[int] = []
    go_on = Event()

    def work(host: Host) -> None:
        begun.append(host.id)
        go_on.wait(60)
        if host.id == 1:
            gevent.kill(gevent.getcurrent())
            gevent.sleep(60)

    tasks = HostTasks("test", lambda: None, 2)
    hosts = [known_host(id=number) for number in (1, 1, 2, 3)]
    for host in hosts:
        tasks.begin(host, work)
    gevent.sleep(0)
    assert begun == [1, 2] and len(tasks) == 2
    go_on.set()
    tasks.join()
    assert len(tasks) == 0
    tasks.begin(hosts[0], work)
    tasks.join()
    assert begun == [1, 2, 1]
