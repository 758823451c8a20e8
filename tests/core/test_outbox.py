"""The outbox: what is committed is sent, what is not is not, and twice is harmless."""

from __future__ import annotations

from typing import Any

import pytest

from core import outbox
from core.bus import Message, Outgoing
from core.errors import Unavailable
from core.events import MEDIA, SESSIONS, MediaChanged, SessionWoken, decode
from core.models import Account
from core.repo import media, messages, pictures
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session


def followed(services: Services, topic: str) -> list[Message]:
    follower = services.bus.follow(topic, "earliest")
    try:
        return follower.poll(0)
    finally:
        follower.close()


def test_a_session_wakes_its_followers_once(services: Services) -> None:
    session = add_session(services, add_account(services))
    assert outbox.drain(services) == 1
    assert outbox.drain(services) == 0
    (message,) = followed(services, SESSIONS)
    assert (message.key, decode(message.value)) == ("a.example", SessionWoken(session.id, "a.example"))


def test_what_is_rolled_back_is_not_sent(services: Services) -> None:
    account = add_account(services)

    def add_and_fail() -> None:
        with services.database.write() as tx:
            messages.add(tx, SESSIONS, 1, NOW)
            raise KeyError(account)

    with pytest.raises(KeyError):
        add_and_fail()
    assert outbox.drain(services) == 0


def test_media_are_sent_as_they_are_now(services: Services) -> None:
    account_id = add_account(services)
    draft = pictures.PictureDraft("f" * 64, 4, 3, None, "pictures/f", "pictures/p", "pictures/t", 10)
    with services.database.write() as tx:
        home = tx.get_one(Account, account_id).home
        media.put_picture(tx, account_id, f"{home}/a.jpg", draft, NOW)
        media.delete(tx, account_id, f"{home}/a.jpg", NOW)
        messages.add(tx, MEDIA, 999, NOW)  # a picture that is gone: nothing to tell
    assert outbox.drain(services) == 3
    (message,) = followed(services, MEDIA)
    event = decode(message.value)
    assert isinstance(event, MediaChanged)
    assert (message.key, event.deleted, event.keys) == (str(event.picture), True, ())


def test_a_bus_that_is_away_loses_nothing(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    add_session(services, add_account(services))

    def away(messages: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.bus, "publish", away)
        assert outbox.drain(services) == 0  # whoever committed has nothing to answer for
    assert outbox.drain(services) == 1
    assert len(followed(services, SESSIONS)) == 1


def test_a_death_between_publish_and_delete_sends_twice(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    add_session(services, add_account(services))
    publish = services.bus.publish

    def publish_and_die(messages: list[Outgoing]) -> None:
        publish(messages)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(services.bus, "publish", publish_and_die)
        with pytest.raises(KeyboardInterrupt):
            outbox.drain(services)
    assert outbox.drain(services) == 1
    assert len(followed(services, SESSIONS)) == 2


def test_of_two_that_drain_at_once_the_newest_state_is_sent_last(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    account_id = add_account(services)
    draft = pictures.PictureDraft("f" * 64, 4, 3, None, "pictures/f", "pictures/p", "pictures/t", 10)
    with services.database.write() as tx:
        path = f"{tx.get_one(Account, account_id).home}/a.jpg"
        media.put_picture(tx, account_id, path, draft, NOW)
    publish = services.bus.publish

    def overtaken(messages: list[Outgoing]) -> None:
        """Another process deletes the picture and sends that, while ours is on its way."""
        monkeypatch.setattr(services.bus, "publish", publish)
        with services.database.write() as tx:
            media.delete(tx, account_id, path, NOW)
        assert outbox.drain(services) >= 1  # ours too where nobody claims rows
        publish(messages)

    monkeypatch.setattr(services.bus, "publish", overtaken)
    outbox.drain(services)
    assert outbox.drain(services) == 0
    last = decode(followed(services, MEDIA)[-1].value)
    assert isinstance(last, MediaChanged)
    assert last.deleted


def test_it_drains_in_bounded_pieces(services: Services) -> None:
    account = add_account(services)
    for number in range(5):
        add_session(services, account, domain=f"{number}.example")
    assert [outbox.drain(services, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(followed(services, SESSIONS)) == 5


def test_an_unknown_topic_is_refused_when_it_is_written(services: Services) -> None:
    with services.database.write() as tx, pytest.raises(ValueError, match="no message"):
        messages.add(tx, "weather", 1, NOW)
