"""How many requests to an address of the directory are under way together."""

from __future__ import annotations

from relay.identity.directory import FIRST_AT_ONCE, MAX_AT_ONCE, _Places


def free(places: _Places) -> int:
    """How many more may begin now."""
    taken = 0
    while places.enter(0.0):
        taken += 1
    for _ in range(taken):
        places.leave(answered=False)
    return taken


def test_they_grow_with_each_answer_up_to_a_bound_and_begin_anew() -> None:
    places = _Places()
    assert free(places) == FIRST_AT_ONCE
    for _ in range(2):
        for _ in range(2 * MAX_AT_ONCE):
            assert places.enter(0.0)
            places.leave(answered=True)
        assert free(places) == MAX_AT_ONCE
        # Those under way cannot be called back, and count.
        for _ in range(FIRST_AT_ONCE + 2):
            assert places.enter(0.0)
        places.begin_anew()
        assert free(places) == 0
        for _ in range(FIRST_AT_ONCE + 2):
            places.leave(answered=False)
        assert free(places) == FIRST_AT_ONCE
