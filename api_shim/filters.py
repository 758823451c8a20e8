"""Query parameters: booleans and dates. Every wrong one is reported, not only the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from api_shim.errors import InvalidFields

_TRUE: Final = frozenset({"true", "1"})
_FALSE: Final = frozenset({"false", "0"})
_WHEN: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?P<fraction>\.\d{1,6})?(?P<zone>Z|z|[+\- ]\d\d:?\d\d)?)?",
    re.ASCII,
)
_TICK: Final = timedelta(microseconds=1)
_COMPARISONS: Final = ("lt", "lte", "gt", "gte")
_LAST: Final = datetime.max.replace(tzinfo=UTC)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Interval:
    """Points in time from `start` on (included) up to `end` (excluded); None = unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    def meet(self, other: Interval) -> Interval:
        starts = [start for start in (self.start, other.start) if start is not None]
        ends = [end for end in (self.end, other.end) if end is not None]
        return Interval(max(starts, default=None), min(ends, default=None))


@dataclass(frozen=True, slots=True)
class Moment:
    """What a date or a date and time stands for: from `start` to before `end` (None: after the end of the calendar)."""

    start: datetime
    end: datetime | None
    whole: bool
    """A day, not a time."""


class Query:
    """The parameters of a request. Problems are collected; `check` raises them together."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self._params = params
        self.problems: dict[str, str] = {}

    def boolean(self, name: str) -> bool | None:
        """true/1 and false/0 in any case; None when absent."""
        value = self._params.get(name)
        if value is None:
            return None
        if value.lower() in _TRUE or value.lower() in _FALSE:
            return value.lower() in _TRUE
        self.problems[name] = "is true or false"
        return None

    def dates(self, name: str) -> Interval:
        """The points in time that `name`, `name_lt`, `name_lte`, `name_gt` and `name_gte` leave."""
        given = [key for key in (name, *(f"{name}_{c}" for c in _COMPARISONS)) if key in self._params]
        if name in given and len(given) > 1:
            self.problems[name] = f"cannot be combined with {', '.join(given[1:])}"
            return Interval()
        result = Interval()
        for key in given:
            moment = parse_moment(self._params[key])
            if moment is None:
                self.problems[key] = "is a date (2018-08-02) or a date and time (2018-08-02T12:45:00Z)"
            else:
                result = result.meet(_interval(key.removeprefix(name), moment))
        return result

    def integer(self, name: str, *, default: int, maximum: int) -> int:
        """At least 1; what is above the maximum becomes the maximum."""
        value = self._params.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"0*[1-9]\d{0,17}", value, re.ASCII):
            self.problems[name] = "is a whole number of at least 1"
            return default
        return min(int(value), maximum)

    def check(self) -> None:
        """Raises InvalidFields when any parameter was wrong."""
        if self.problems:
            raise InvalidFields(self.problems)


def parse_moment(text: str) -> Moment | None:
    """A date or a date and time in ISO 8601; without offset it is UTC. An offset's plus that arrived as a space is read as a plus."""
    found = _WHEN.fullmatch(text.strip())
    if found is None:
        return None
    try:
        if found["time"] is None:
            start = datetime.combine(date.fromisoformat(found["day"]), datetime.min.time(), UTC)
            return Moment(start, _later(start, timedelta(days=1)), whole=True)
        start = datetime.fromisoformat(f"{found['day']}T{found['time']}{_fraction(found['fraction'])}{_zone(found['zone'])}").astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        return None
    exact = _TICK if found["fraction"] else timedelta(seconds=1)
    return Moment(start, _later(start, exact), whole=False)


def within(query: Select[Row], column: InstrumentedAttribute[datetime], interval: Interval) -> Select[Row]:
    """The query, only with rows whose column lies in the interval."""
    if interval.start is not None:
        query = query.where(column >= interval.start)
    if interval.end is not None:
        query = query.where(column < interval.end)
    return query


def _interval(comparison: str, moment: Moment) -> Interval:
    """A day counts as a whole: before it, after it, or with it; a time is one point, and only `=` means its whole second."""
    after = moment.end if moment.whole else _later(moment.start, _TICK)
    if comparison == "_lt":
        return Interval(end=moment.start)
    if comparison == "_lte":
        return Interval(end=after)
    if comparison == "_gt":
        return Interval(start=after or _LAST)
    if comparison == "_gte":
        return Interval(start=moment.start)
    return Interval(moment.start, moment.end)


def _later(start: datetime, by: timedelta) -> datetime | None:
    try:
        return start + by
    except OverflowError:
        return None


def _fraction(text: str | None) -> str:
    return f".{text[1:]:0<6}" if text else ""


def _zone(text: str | None) -> str:
    if text is None or text in "Zz":
        return "+00:00"
    digits = text[1:].replace(":", "")
    return f"{'-' if text[0] == '-' else '+'}{digits[:2]}:{digits[2:]}"
