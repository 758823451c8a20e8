"""`filigrane doctor`: all is well, or what is wrong and what to do."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import highwater, leases
from core.errors import Unavailable
from core.monitor import monitoring
from core.services import Services
from core.settings import PREFIX, Settings
from filigrane import cli
from filigrane.doctor import CHECKS, Finding, Patient, _bounded, exit_code


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that a role has been started on."""
    with Services.open(Settings(data=tmp_path / "data")) as services:
        highwater.raise_to(services.database, services.store, services.clock)
    return tmp_path / "data"


def findings(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Finding]]:
    code = cli.main(["doctor", "--data", str(data), "--json"])
    return code, [Finding(**each) for each in json.loads(capsys.readouterr().out)]


def by_state(found: list[Finding], state: str) -> list[str]:
    return [finding.check for finding in found if finding.state == state]


def test_all_is_well(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(data, capsys)
    assert {finding.check for finding in found} >= {"settings", "data folder", "database", "schema", "object store", "bus", "history"}
    assert by_state(found, "failed") == []
    assert code == (1 if by_state(found, "warning") else 0)
    assert not list((data / "objects").rglob("doctor/*/*"))


def test_a_person_reads_one_line_a_check(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--data", str(data)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= len(CHECKS)
    assert all(line.split()[0] in ("ok", "warning", "failed") for line in lines)


def test_before_the_first_start_nothing_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(tmp_path / "new", capsys)
    assert (code, by_state(found, "failed")) == (1, [])
    assert "schema" in by_state(found, "warning")


def test_each_part_is_judged_by_itself(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in data.glob("bus.sqlite*"):
        path.write_bytes(b"no database" * 100)
    code, found = findings(data, capsys)
    assert (code, by_state(found, "failed")) == (2, ["bus"])
    (bus,) = [finding for finding in found if finding.check == "bus"]
    assert "bus_corrupt" in bus.said
    assert "FILIGRANE_BUS_URL" in bus.advice


def test_wrong_settings_are_a_finding(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILIGRANE_BUS_URL", "rabbit://")
    code, (finding,) = findings(data, capsys)
    assert code == 2
    assert "FILIGRANE_BUS_URL" in finding.said


def test_warnings_say_what_to_do(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILIGRANE_ALLOW_NETWORKS", "10.0.0.0/8")
    code, found = findings(data, capsys)
    assert code == 1
    assert "settings" in by_state(found, "warning")
    assert all(finding.advice for finding in found if finding.state != "ok")


def test_those_who_hold_domains_are_crawlers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Services.open(Settings(data=data)) as services, services.database.write() as tx:
        for name in ("site.example", "127.0.0.1:8000"):
            leases.acquire(tx, name, "crawler-1", 60, services.clock.now())
        leases.acquire(tx, leases.of_job("registry", "0-of-1"), "registry-1", 60, services.clock.now())
    _, found = findings(data, capsys)
    assert [finding.said for finding in found if finding.check == "crawlers"] == ["leases are held by: crawler-1 (2)"]


def test_a_part_that_hangs_is_one_finding(tmp_path: Path) -> None:
    gate = threading.Event()

    def hangs(patient: Patient) -> Iterator[Finding]:
        gate.wait()
        yield Finding("bus", "ok", "late")

    assert _bounded("bus", hangs, "start it", Patient(Settings(data=tmp_path)), 0.1) == [
        Finding("bus", "failed", "does not answer within 0.1 s", "start it")
    ]
    gate.set()


def test_a_full_disk_has_advice_of_its_own(tmp_path: Path) -> None:
    def is_full(_: Patient) -> Iterator[Finding]:
        raise Unavailable("the object store is full; free some space", code="store_full")

    [finding] = _bounded("object store", is_full, "check the bucket", Patient(Settings(data=tmp_path)), 5)
    assert finding.said == "the object store is full; free some space [store_full]"
    assert finding.advice == "everything goes on by itself, once there is room"


def test_a_restored_database_is_found_and_accepted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Services.open(Settings(data=data)) as services:
        known = highwater.stored(services.store)
        assert known is not None
        services.store.put(
            highwater.KEY, json.dumps({"written": "2026-11-25T00:00:00Z", "ids": {"media": 7}, "epoch": 3, "registry": 2}).encode()
        )
    code, found = findings(data, capsys)
    assert (code, by_state(found, "failed")) == (2, ["history"])
    assert cli.main(["doctor", "--data", str(data), "--accept-restored"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"] == 1
    assert by_state(findings(data, capsys)[1], "failed") == []


def test_real_servers_are_looked_at(
    tmp_path: Path,
    kafka_server: str,
    s3_settings: dict[str, str],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"bus_url": f"kafka://{kafka_server}", "database_url": postgres_url, "secret_key": "0123456789abcdef", **s3_settings}
    settings["topic_prefix"] = f"{uuid.uuid4().hex}."
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    code, found = findings(tmp_path / "data", capsys)
    assert by_state(found, "failed") == []
    assert "postgresql answers" in [finding.said for finding in found]
    assert "fsync is off" in " ".join(finding.said for finding in found if finding.state == "warning") or code == 0
    monkeypatch.setenv("FILIGRANE_STORE_URL", "s3://no-such-bucket-here/x")
    code, found = findings(tmp_path / "data", capsys)
    assert (code, by_state(found, "failed")) == (2, ["object store"])
    assert settings["secret_key"] not in repr(found)


def test_quick_asks_the_role_on_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monitoring("127.0.0.1:0", dict) as port:
        monkeypatch.setenv("FILIGRANE_METRICS_LISTEN", f"0.0.0.0:{port}")
        assert cli.main(["doctor", "--quick"]) == 0
    assert cli.main(["doctor", "--quick"]) == 1
    monkeypatch.delenv("FILIGRANE_METRICS_LISTEN")
    assert cli.main(["doctor", "--quick"]) == 2
    assert "FILIGRANE_METRICS_LISTEN" in capsys.readouterr().err


def test_the_exit_code_is_that_of_the_worst() -> None:
    ok, warning, failed = Finding("a", "ok", ""), Finding("b", "warning", "", "do"), Finding("c", "failed", "", "do")
    assert [exit_code([ok]), exit_code([ok, warning]), exit_code([failed, warning, ok])] == [0, 1, 2]
