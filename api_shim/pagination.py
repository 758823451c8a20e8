"""Collections in chunks: keyset cursors, so nothing is skipped or doubled when rows come and go meanwhile.

A cursor names the last row that was seen and the direction; it is signed, and opaque to the client.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode

import msgspec
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from api_shim.filters import Query
from core.errors import InvalidInput

DEFAULT_SIZE: Final = 100
MAX_SIZE: Final = 1000
_MAC: Final = 12

Row = TypeVar("Row")


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    key: tuple[datetime | int, ...]
    backward: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """How a collection is sorted: by these columns together, which are unique."""

    name: str
    columns: tuple[InstrumentedAttribute[Any], ...]
    descending: bool

    def key(self, row: object) -> tuple[datetime | int, ...]:
        return tuple(getattr(row, column.key) for column in self.columns)

    def by(self, *, backward: bool) -> list[ColumnElement[Any]]:
        return [column.desc() if self.descending != backward else column.asc() for column in self.columns]

    def beyond(self, key: Sequence[datetime | int], *, backward: bool) -> ColumnElement[bool]:
        """The rows that come after the key (before it, for backward)."""
        left = tuple_(*self.columns)
        right = tuple_(*(literal(value, column.type) for value, column in zip(key, self.columns, strict=True)))
        return left < right if self.descending != backward else left > right


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    items: list[Row]
    count: int
    next: str | None
    previous: str | None


class Paginator:
    def __init__(self, secret: bytes, url: str, params: Mapping[str, str]) -> None:
        """
        Args:
            secret: signs the cursors.
            url: of the collection, as the client called it, without query.
            params: of the request; links keep them.
        """
        self._secret = secret
        self._url = url
        self._params = {name: value for name, value in params.items() if name != "cursor"}
        self._given = params.get("cursor")
        query = Query(params)
        self._size = query.integer("page_size", default=DEFAULT_SIZE, maximum=MAX_SIZE)
        query.check()

    def page(self, tx: Session, query: Select[Row], order: Order) -> Page[Row]:
        """The chunk that the request asks for. Raises InvalidInput: a damaged cursor."""
        cursor = self._read(order)
        backward = cursor is not None and cursor.backward
        chunk = query.order_by(None).order_by(*order.by(backward=backward)).limit(self._size + 1)  # one more: is there a next page?
        if cursor is not None:
            chunk = chunk.where(order.beyond(cursor.key, backward=backward))
        rows = list(tx.scalars(chunk).all())
        more, rows = len(rows) > self._size, rows[: self._size]
        if backward:
            rows.reverse()
        here = cursor.key if cursor is not None else ()
        first, last = (order.key(rows[0]), order.key(rows[-1])) if rows else (here, here)
        before, after = more if backward else cursor is not None and self._any_before(tx, query, order, first), more or backward
        return Page(
            items=rows,
            count=tx.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0,
            next=self._link(order, last, backward=False) if after else None,
            previous=self._link(order, first, backward=True) if before else None,
        )

    def _any_before(self, tx: Session, query: Select[Row], order: Order, key: Sequence[datetime | int]) -> bool:
        return tx.scalar(query.where(order.beyond(key, backward=True)).limit(1)) is not None

    def _link(self, order: Order, key: Sequence[datetime | int], *, backward: bool) -> str:
        payload = msgspec.json.encode(Cursor(tuple(key), backward))
        cursor = base64.urlsafe_b64encode(self._mac(order, payload) + payload).decode().rstrip("=")
        return f"{self._url}?{urlencode({**self._params, 'cursor': cursor})}"

    def _read(self, order: Order) -> Cursor | None:
        if self._given is None:
            return None
        try:
            data = base64.urlsafe_b64decode(self._given + "=" * (-len(self._given) % 4))
            payload = data[_MAC:]
            if hmac.compare_digest(data[:_MAC], self._mac(order, payload)):
                return msgspec.json.decode(payload, type=Cursor)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            pass
        raise InvalidInput("this cursor was not given out for this collection; begin again without it", code="invalid_cursor")

    def _mac(self, order: Order, payload: bytes) -> bytes:
        return hmac.new(self._secret, b"cursor/" + order.name.encode() + b"/" + payload, hashlib.sha256).digest()[:_MAC]
