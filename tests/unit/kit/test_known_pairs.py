"""The memory of stored pairs: known twice is said once, forgotten is said again, and there is a bound."""

from relay.stream.known_pairs import KnownPairs


def test_a_pair_is_new_once() -> None:
    known = KnownPairs()
    assert [known.add(pair) for pair in ((1, "a"), (1, "b"), (2, "a"), (1, "a"))] == [True, True, True, False]
    known.discard((1, "a"))
    known.discard((9, "never"))
    assert known.add((1, "a"))


def test_what_is_used_stays_and_the_rest_goes() -> None:
    known = KnownPairs(100)
    for uid in range(10_000):
        known.add((uid, "a"))
        assert not known.add((0, "a")) or uid == 0
        assert len(known) <= 200
    assert known.add((1, "a"))
    assert not known.add((9_999, "a"))


def test_forgotten_also_in_the_older_generation() -> None:
    known = KnownPairs(10)
    for uid in range(12):
        known.add((uid, "a"))
    known.discard((3, "a"))
    assert known.add((3, "a"))
