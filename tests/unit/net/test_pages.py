"""Lists that come page by page: their end, also where they have none."""

from __future__ import annotations

from itertools import chain, cycle, islice

import pytest

from relay.net.pages import Ending


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_a_list_that_goes_in_circles_is_found_soon(before: int, length: int) -> None:
    lead = [f"before {number}" for number in range(before)]
    handed_out = chain(lead, cycle(str(number) for number in range(length)))
    ending = Ending()
    repeated = [ending.repeats(cursor) for cursor in islice(handed_out, 4 * (before + length) + 4)]
    assert True in repeated and not any(repeated[: before + length])


@pytest.mark.parametrize("before", range(6))
def test_a_page_that_leads_to_itself_is_found_at_once(before: int) -> None:
    ending = Ending()
    cursors = [str(number) for number in range(before + 1)]
    assert not any(ending.repeats(cursor) for cursor in cursors)
    assert ending.repeats(cursors[-1])


def test_the_cursor_of_the_first_page_counts() -> None:
    assert Ending("7").repeats("7")
    assert not Ending("7").repeats("8")


def test_the_last_page_is_no_repetition() -> None:
    ending = Ending("7")
    assert not any([ending.repeats("8"), ending.repeats(None), ending.repeats(None)])
