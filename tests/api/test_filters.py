"""Dates and booleans in the query (159 to 166)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim.errors import InvalidFields
from api_shim.filters import Interval, Query, parse_moment

DAY = datetime(2018, 8, 2, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)
TICK = timedelta(microseconds=1)
NOON = datetime(2018, 8, 2, 12, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("params", "interval"),
    [
        ({"date": "2018-08-02"}, Interval(DAY, NEXT)),
        ({"date": "2018-08-02T12:45:00Z"}, Interval(NOON, NOON + timedelta(seconds=1))),
        ({"date": "2018-08-02T12:45:00.5Z"}, Interval(NOON + timedelta(seconds=0.5), NOON + timedelta(seconds=0.5) + TICK)),
        ({"date_lt": "2018-08-02"}, Interval(None, DAY)),
        ({"date_lte": "2018-08-02"}, Interval(None, NEXT)),
        ({"date_gt": "2018-08-02"}, Interval(NEXT, None)),
        ({"date_gte": "2018-08-02"}, Interval(DAY, None)),
        ({"date_gt": "2018-08-01", "date_lte": "2018-08-02T12:45:00Z"}, Interval(DAY, NOON + TICK)),
        ({"date_gte": "2018-08-02T14:45:00 02:00"}, Interval(NOON, None)),
        ({"date_gte": "2018-08-02T14:45:00+02:00"}, Interval(NOON, None)),
        ({"date_gte": "2018-08-02T12:45"}, Interval(NOON, None)),
        ({"other": "x"}, Interval()),
    ],
)
def test_161_to_165_dates(params: dict[str, str], interval: Interval) -> None:
    query = Query(params)
    assert query.dates("date") == interval
    query.check()


@pytest.mark.parametrize(
    "value", ["", "x", "2018-13-01", "2018-02-30", "2018-08-02T25:00:00Z", "20180802", "2018-08-02T12:45:00Zjunk", "٢٠١٨-٠٨-٠٢"]
)
def test_166_bad_dates_name_the_parameter(value: str) -> None:
    query = Query({"date_gt": value})
    query.dates("date")
    with pytest.raises(InvalidFields) as error:
        query.check()
    assert list(error.value.fields) == ["date_gt"]


@pytest.mark.parametrize("other", ["lt", "lte", "gt", "gte"])
def test_163_date_stands_alone(other: str) -> None:
    query = Query({"date": "2018-08-02", f"date_{other}": "2018-08-02"})
    query.dates("date")
    with pytest.raises(InvalidFields):
        query.check()


def test_159_booleans() -> None:
    for value in ("true", "True", "TRUE", "1"):
        assert Query({"b": value}).boolean("b") is True
    for value in ("false", "False", "FALSE", "0"):
        assert Query({"b": value}).boolean("b") is False
    query = Query({"b": "maybe"})
    query.boolean("b")
    assert query.problems
    assert Query({}).boolean("b") is None


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    moment = parse_moment(text)
    assert moment is None or (moment.start.tzinfo is UTC and (moment.end is None or moment.start < moment.end))


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda moment: 1 < moment.year < 9999), st.integers(-14 * 60, 14 * 60))
def test_every_datetime_round_trips(utc: datetime, minutes: int) -> None:
    moment = utc.astimezone(timezone(timedelta(minutes=minutes)))
    parsed = parse_moment(moment.isoformat())
    assert parsed is not None
    assert parsed.start == moment


@given(st.dates(), st.sampled_from(["", "_lt", "_lte", "_gt", "_gte"]), st.datetimes(timezones=st.just(UTC)))
def test_a_day_is_compared_as_a_whole(day: date, comparison: str, moment: datetime) -> None:
    interval = Query({f"date{comparison}": day.isoformat()}).dates("date")
    inside = (interval.start is None or interval.start <= moment) and (interval.end is None or moment < interval.end)
    other = moment.date()
    expected = {"": other == day, "_lt": other < day, "_lte": other <= day, "_gt": other > day, "_gte": other >= day}[comparison]
    assert inside == expected or (comparison == "_gt" and day == date.max)
