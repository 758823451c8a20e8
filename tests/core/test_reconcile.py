"""J05: a database from a backup that is older than the store is refused, and made one with it again by the doctor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core import highwater, leases, outbox
from core.errors import Corrupt, Unavailable
from core.leases import Held
from core.models import CrawlSession, Outbox, Picture
from core.reconcile import MARGIN, Reconciled, reconcile
from core.repo import accounts, crawls, media, sequences
from core.repo.pictures import PictureDraft
from core.services import Services
from core.settings import Settings
from scheduler.jobs import note_highwater
from tests.servers.postgres import Cluster

DOMAIN = "example.org"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


def session(services: Services, domain: str = DOMAIN) -> CrawlSession:
    with services.database.write() as tx:
        account, _ = accounts.ensure_local(tx, services.settings.secret, services.clock.now())
        return crawls.create_session(tx, account.id, start_urls=[f"http://{domain}/"], domain=domain, now=services.clock.now())


def begin(services: Services, session_id: int, domain: str = DOMAIN) -> tuple[Held, int]:
    """Under a new epoch."""
    with services.database.write() as tx:
        held = leases.acquire(tx, domain, "one", 30, services.clock.now(), restart=True)
        assert held is not None
        return held, crawls.begin_cycle(tx, held, session_id, services.clock.now()).cycle_count


def picture(services: Services, name: str) -> int:
    draft = PictureDraft(name, 10, 10, None, f"pictures/1/{name}/f", f"pictures/1/{name}/p", f"pictures/1/{name}/t", 100)
    with services.database.write() as tx:
        account, _ = accounts.ensure_local(tx, services.settings.secret, services.clock.now())
        node, _ = media.put_picture(tx, account.id, f"{account.home}/{name}", draft, services.clock.now())
        assert node.registration is not None
        return node.registration.picture_id


def note(services: Services) -> None:
    list(note_highwater(services))


def backup(settings: Settings, name: str = "backup") -> Path:
    copy = settings.data.parent / name
    shutil.copy(settings.data / "filigrane.sqlite", copy)
    return copy


def restore(settings: Settings, copy: Path) -> None:
    for path in settings.data.glob("filigrane.sqlite*"):
        path.unlink()
    shutil.copy(copy, settings.data / "filigrane.sqlite")


@pytest.fixture
def restored(settings: Settings) -> tuple[Settings, int]:
    """One session; then a backup; then a cycle, another session and a picture, of which the restored database knows nothing."""
    with Services.open(settings) as services:
        one = session(services)
        picture(services, "kept")
        outbox.drain(services)
    copy = backup(settings)
    with Services.open(settings) as services:
        held, cycle = begin(services, one.id)
        begin(services, one.id)
        services.store.put(f"crawl/{one.id}/{cycle}/{held.epoch}/000000.tar", b"a segment whose row is lost")
        services.store.put(f"frontiers/{one.id}/{cycle + 3}-{held.epoch}", b"of a cycle whose row is lost")
        lost = session(services, "lost.example.org")
        picture(services, "lost")
        note(services)
    restore(settings, copy)
    return settings, lost.id


def test_a_fresh_store_and_one_that_is_in_step_are_opened(settings: Settings) -> None:
    for _ in range(2):
        with Services.open(settings) as services:
            session(services)
            note(services)


def test_it_never_goes_down(settings: Settings) -> None:
    with Services.open(settings) as services:
        session(services)
        note(services)
        known = highwater.stored(services.store)
        assert known is not None
        assert known.ids["sessions"] == 1
        assert not highwater.raise_to(services.database, services.store, services.clock)
    for path in settings.data.glob("filigrane.sqlite*"):
        path.unlink()
    with Services.open(settings, restored=True) as services:
        note(services)
        assert highwater.stored(services.store) == known


def test_an_older_database_is_refused_with_what_to_do(restored: tuple[Settings, int]) -> None:
    settings, _ = restored
    with pytest.raises(Unavailable, match="filigrane doctor --accept-restored") as caught:
        Services.open(settings)
    assert caught.value.code == "database_restored"


def test_nothing_is_given_out_a_second_time(restored: tuple[Settings, int]) -> None:
    settings, lost_session = restored
    with Services.open(settings, restored=True) as services:
        known = highwater.stored(services.store)
        assert known is not None
        done = reconcile(services)
        assert done.tables > 0
        assert (done.leases, done.sessions, done.announced) == (1, 1, 2)
        assert reconcile(services) == Reconciled(0, 0, 0, 0)
    with Services.open(settings) as services:
        fresh = session(services, "fresh.example.org")
        assert fresh.id > lost_session + MARGIN
        assert picture(services, "fresh") > known.ids["pictures"]
        with services.database.read() as tx:
            (old,) = tx.scalars(select(CrawlSession).where(CrawlSession.domain == DOMAIN))
            (kept,) = tx.scalars(select(Picture).where(Picture.pixel_hash == "kept"))
            assert kept.version > known.registry + MARGIN
            assert sequences.epoch(tx) > known.epoch
        held, cycle = begin(services, old.id)
        assert held.epoch > known.epoch
        assert cycle == 5  # behind the frontier of a cycle that nobody remembers
        held, _ = begin(services, fresh.id, "fresh.example.org")
        with services.database.read() as tx:
            assert tx.scalar(select(func.count()).select_from(Outbox)) == 4  # two old ones told again, two new ones
        outbox.drain(services)


def test_a_cycle_that_lost_nothing_goes_on(settings: Settings) -> None:
    with Services.open(settings) as services:
        one = session(services)
        _, cycle = begin(services, one.id)
    copy = backup(settings)
    with Services.open(settings) as services:
        session(services, "lost.example.org")
        note(services)
    restore(settings, copy)
    with Services.open(settings, restored=True) as services:
        assert reconcile(services).sessions == 0
        assert begin(services, one.id)[1] == cycle


def test_postgresql_is_watched_and_reconciled_too(tmp_path: Path, postgres_server: Cluster, postgres_template: str) -> None:
    with postgres_server.database(postgres_template) as before, postgres_server.database(postgres_template) as restored:
        data, key = tmp_path / "data", "0123456789abcdef"
        with Services.open(Settings(data=data, database_url=before, secret_key=key)) as services:
            lost = [session(services, f"{name}.example.org") for name in "abc"]
            held, cycle = begin(services, lost[0].id, "a.example.org")
            services.store.put(f"crawl/{lost[0].id}/{cycle}/{held.epoch}/000000.tar", b"a segment whose row is lost")
            note(services)
        settings = Settings(data=data, database_url=restored, secret_key=key)
        with pytest.raises(Unavailable) as caught:
            Services.open(settings)
        assert caught.value.code == "database_restored"
        with Services.open(settings, restored=True) as services:
            kept = session(services, "a.example.org")
            assert kept.id == lost[0].id
            assert reconcile(services).sessions == 1
        with Services.open(settings) as services:
            assert session(services, "d.example.org").id > lost[-1].id + MARGIN
            again, anew = begin(services, kept.id, "a.example.org")
            assert (again.epoch > held.epoch, anew) == (True, cycle + 1)


def test_what_cannot_be_read_is_no_reason_to_go_on(settings: Settings) -> None:
    with Services.open(settings) as services:
        services.store.put(highwater.KEY, b"{}")
    with pytest.raises(Corrupt, match="operations/highwater"):
        Services.open(settings)
