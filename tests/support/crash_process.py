"""The process that is killed at a durable step of a relay's life: before the step of a number, with SIGKILL.

Started by `tests/promises/test_crash_points.py` with the folder, the database's address, the ledger's file and the
number. What had been told by then is left in the file `told`.
"""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

from tests.support.crash_life import Life, Told
from tests.support.durable_steps import Step, Steps


def main(arguments: list[str]) -> None:
    """Play the life, as far as it goes."""
    folder, url, ledger, number = Path(arguments[0]), arguments[1], Path(arguments[2]), int(arguments[3])
    told = Told()
    with Steps(folder / "persist") as steps:

        def kill(_: Step) -> None:
            if steps.count - 1 == number:
                (folder / "told").write_bytes(pickle.dumps(told))
                os.kill(os.getpid(), signal.SIGKILL)

        steps.before = kill
        Life(folder / "persist", url, pickle.loads(ledger.read_bytes()), told).play()
