from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from matcher.copies.names import Names

_IDS = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(0, 3), st.text(max_size=1)))


@given(st.lists(_IDS, unique=True), st.lists(_IDS))
def test_places_are_those_of_a_dict(ids: list[object], others: list[object]) -> None:
    names, places = Names(ids), {id_: place for place, id_ in enumerate(ids)}
    assert list(names) == ids
    assert [names[place] for place in range(len(names))] == ids
    for id_ in (*ids, *others):
        assert names.place(id_) == places.get(id_)


@dataclass(frozen=True)
class _Alike:
    """All have the same hash."""

    number: int

    def __hash__(self) -> int:
        return 7


def test_equal_hashes_are_told_apart() -> None:
    names = Names(map(_Alike, range(9)))
    assert [names.place(_Alike(number)) for number in range(10)] == [*range(9), None]
    assert names.place(7) is None


def test_numbers_take_twelve_bytes_and_stay_numbers() -> None:
    names = Names(range(1000, 5000))
    assert names.nbytes == 12 * 4000
    assert type(names[0]) is int
    assert names.place(1001.0) == 1
    assert list(Names([0, True, 2**70])) == [0, True, 2**70]
