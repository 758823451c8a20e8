"""What differs between the databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import ClassVar

from sqlalchemy import Connection, Engine

from core.errors import Unavailable


class Backend(ABC):
    """One kind of database, at one URL."""

    shared: ClassVar[bool]
    """Whether other machines use it too."""
    write: ClassVar[str]
    """The statement that begins a transaction that may write."""
    read: ClassVar[str]
    """The statement that begins a consistent view."""

    @abstractmethod
    def engine(self) -> Engine:
        """A new pool of connections. They are in autocommit mode: transactions begin with the statements above."""

    @abstractmethod
    def migration(self, connection: Connection) -> AbstractContextManager[None]:
        """A transaction that no other process's migration runs beside; waits for as long as theirs takes, and commits at the end."""

    @abstractmethod
    def unavailable(self, error: BaseException) -> Unavailable | None:
        """What the failure is called; None for one that is the program's fault."""

    @abstractmethod
    def in_conflict(self, error: BaseException) -> bool:
        """Whether nothing was done because another transaction came between, so that the next try may find a way."""
