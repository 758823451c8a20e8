"""The command line: what it takes, what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import filigrane
from core.models import Batch
from core.repo import accounts, media
from core.services import Services
from core.settings import load
from core.urls import registrable_domain
from filigrane.cli import main, parser
from filigrane.commands import account, batch, register, roles, search, session
from filigrane.commands.session import by_site
from matcher import marks
from matcher.decode import decode
from matcher.sealing import AccountKeys
from matcher.watermark import lmk
from tests.filigrane.batches import made_batch

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("FILIGRANE_DATA", str(folder))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A photograph of sorts: smooth, with texture."""
    noise = np.random.default_rng(7).normal(0, 9, (300, 400, 3))
    y, x = np.mgrid[0:300, 0:400]
    rgb = 128 + 60 * np.sin(x / 31)[..., None] + 40 * np.cos(y / 17)[..., None] + noise
    file = tmp_path / "pictures" / "harbour.jpg"
    file.parent.mkdir()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(file, quality=95)
    return file


def says(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """Runs a command; its JSON, or for other exit codes what it says on stderr."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else err


# --- what can be said


def test_help_is_light() -> None:
    heavy = "{'sqlalchemy', 'cv2', 'numpy', 'scrapy', 'starlette', 'pydantic', 'rich'}"
    code = f"import sys, filigrane.cli; filigrane.cli.parser().format_help(); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_who_uses_the_data_folder_alone_loads_no_client_of_a_server(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        import api_shim.server, crawler.worker, matcher.worker, scheduler.clock
        from core.services import Services
        from core.settings import Settings
        from pathlib import Path
        Services.open(Settings(data=Path({str(tmp_path)!r}))).close()
        sys.exit(str({{"psycopg", "kafka", "boto3", "botocore"}} & set(sys.modules) or ""))
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FILIGRANE_")}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["session"],
        ["session", "show"],
        ["session", "show", "one"],
        ["session", "add", "http://example.org/", "--interval", "60", "--cron", "0 4 * * *"],
        ["batch", "download", "1"],
        ["serve", "--port", "70000"],
        ["search", "x.jpg", "--transform", "swirl"],
        ["search", "x.jpg", "--category", "all"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("line", "function"),
    [
        ("serve", roles.serve),
        ("api", roles.run),
        ("crawler --only-session 3", roles.run),
        ("matcher", roles.run),
        ("scheduler", roles.run),
        ("account create ann", account.create),
        ("account quota ann --images 10", account.quota),
        ("session add http://example.org/", session.add),
        ("session list", session.list_all),
        ("session show 1", session.show),
        ("session pause 1", session.pause),
        ("session resume 1", session.resume),
        ("session run 1", session.run),
        ("session delete 1", session.delete),
        ("crawl http://example.org/", session.crawl),
        ("batch list", batch.list_all),
        ("batch download 1 -o x", batch.download),
        ("register x.jpg", register.register),
        ("search x.jpg", search.search),
    ],
)
def test_every_command_is_there(line: str, function: object) -> None:
    module, _, name = parser().parse_args(line.split()).command.partition(":")
    assert getattr(sys.modules[f"filigrane.commands.{module}"], name) is function


def test_wrong_settings_are_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FILIGRANE_SEGMENT_SECONDS", "soon")
    assert "FILIGRANE_SEGMENT_SECONDS" in says(capsys, "session", "list", code=2)


def test_data_wins_over_the_environment(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(capsys, "session", "list", "--data", str(tmp_path / "other")) == []
    assert (tmp_path / "other" / "filigrane.sqlite").exists()
    assert not data.exists()


# --- accounts


def test_account_create_gives_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    made = says(capsys, "account", "create", "ann", "--password", "p", "--email", "ann@example.org")
    assert (made["username"], made["home"]) == ("ann", "ann")
    with Services.open(load()) as services, services.database.read() as tx:
        assert accounts.by_token(tx, made["token"]).email == "ann@example.org"
        assert accounts.check_password(tx, "ann", "p").username == "ann"


def test_a_password_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    says(capsys, "account", "create", "ann", "--password", "-")
    with Services.open(load()) as services, services.database.read() as tx:
        assert accounts.check_password(tx, "ann", "from a pipe")


def test_the_token_of_local_is_told_whenever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    made = says(capsys, "account", "create", "local")
    assert says(capsys, "account", "create", "local") == made
    with Services.open(load()) as services, services.database.read() as tx:
        assert accounts.by_token(tx, made["token"]).operator


def test_a_taken_name_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, "account", "create", "ann")
    assert "[username_taken]" in says(capsys, "account", "create", "ann", code=1)


def test_an_unknown_account_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert "[account_not_found]" in says(capsys, "session", "list", "--account", "nobody", code=1)


# --- sessions


def test_session_add_makes_one_session_for_each_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "urls.txt"
    file.write_text("# ours\nhttps://www.example.org/a  # the shop\n\nhttp://example.com/#top\n")
    added = says(capsys, "session", "add", "http://example.org", "--start-urls", str(file), "--interval", "3600", "--no-search")
    assert [row["start_urls"] for row in added] == [["http://example.org/", "https://www.example.org/a"], ["http://example.com/"]]
    assert {(row["interval"], row["search"], row["shared"], row["state"]) for row in added} == {(3600.0, False, False, "pending")}
    assert says(capsys, "session", "list") == added


def test_a_session_is_shown_paused_resumed_and_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    [added] = says(capsys, "session", "add", "http://example.org/", "--shared", "--cron", "0 4 * * *")
    number = str(added["id"])
    assert says(capsys, "session", "show", number) == added
    assert says(capsys, "session", "pause", number)["state"] == "paused"
    assert says(capsys, "session", "resume", number)["state"] == "pending"
    assert says(capsys, "session", "delete", number) == {"deleted": added["id"]}
    assert "[not_found]" in says(capsys, "session", "show", number, code=1)


def test_another_accounts_session_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, "account", "create", "ann")
    [added] = says(capsys, "session", "add", "http://example.org/", "--account", "ann")
    assert "[not_found]" in says(capsys, "session", "show", str(added["id"]), code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://example.org/"], "[invalid_url]"),
        ([], "[invalid_url]"),
        (["http://127.0.0.1/"], "[address_refused]"),
        (["http://example.org/", "--download-delay", "-1"], "download_delay"),
        (["http://example.org/", "--cron", "whenever"], "[cron_invalid]"),
        (["--start-urls", "/no/such/file"], "[file_unreadable]"),
    ],
)
def test_what_cannot_be_a_session_is_1(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in says(capsys, "session", "add", *arguments, code=1)
    assert says(capsys, "session", "list") == []


HOSTS = st.sampled_from(["a.org", "www.a.org", "b.co.uk", "c.co.uk", "10.0.0.1:8080"])


@given(st.lists(st.tuples(HOSTS, st.sampled_from(["", "/x", "/y#z"])), min_size=1))
def test_sites_share_nothing_and_lose_nothing(parts: list[tuple[str, str]]) -> None:
    given_urls = [f"http://{host}{path}" for host, path in parts]
    sites = by_site(given_urls)
    domains = [{registrable_domain(url) for url in site} for site in sites]
    assert all(len(domain) == 1 for domain in domains)
    assert len(set.union(*domains)) == len(sites)
    assert {url for site in sites for url in site} == {url for [[url]] in (by_site([each]) for each in given_urls)}


# --- pictures


def test_register_files_and_folders(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below = picture.parent / "old" / "bridge.png"
    below.parent.mkdir()
    Image.new("RGB", (80, 60), "teal").save(below)
    done = says(capsys, "register", str(picture.parent), "--to", "/web/")
    assert [entry["path"] for entry in done] == ["local/web/harbour.jpg", "local/web/old/bridge.png"]
    with Services.open(load()) as services, services.database.read() as tx:
        assert media.get(tx, 1, "local/web/old/bridge.png").registration is not None


def test_a_file_that_is_no_picture_is_told_and_the_rest_is_registered(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.txt").write_text("not a picture")
    assert main(["register", str(tmp_path / "note.txt"), str(picture)]) == 1
    bad, good = json.loads(capsys.readouterr().out)
    assert bad["error"]["code"] == "invalid_image"
    assert good["path"] == "local/harbour.jpg"


def test_pictures_with_little_or_no_texture_are_registered_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.tile(np.arange(60, 200, dtype=np.uint8), (100, 1))).save(tmp_path / "gradient.png")
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "teal.png")
    assert main(["register", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    gradient, teal = json.loads(out)
    assert gradient["note"].startswith("a plain gradient: copies cannot be told from other pictures")
    assert teal["note"].startswith("no texture: copies cannot be told apart")
    assert gradient["note"] in err
    assert teal["note"] in err


def test_a_missing_file_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in says(capsys, "register", "/no/such.jpg", code=1)


def test_marked_copies_are_written_and_detected(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [done] = says(capsys, "register", str(picture), "--watermark", "--out", str(tmp_path / "marked"))
    assert done["marked"] == str(tmp_path / "marked" / "harbour.jpg")
    with Services.open(load()) as services, services.database.read() as tx:
        registration = media.get(tx, 1, "local/harbour.jpg").registration
        assert registration is not None
        assert registration.key_id == done["key_id"]
        assert registration.lmk_key is not None
    assert detected(done, picture).marked


def detected(done: dict[str, Any], original: Path) -> filigrane.Detection:
    """What is found in the marked copy with the registration in the store."""
    with Services.open(load()) as services, services.database.read() as tx:
        registration = media.get(tx, 1, f"local/{original.name}").registration
        assert registration is not None
        assert registration.lmk_key is not None
        found = marks.stored(services.store, registration.lmk_key, registration.picture.small_key)
    return filigrane.detect(decode(Path(done["marked"]).read_bytes())[0], found)


def test_quotas_are_set_and_kept(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, "register", str(picture))
    told = says(capsys, "account", "quota", "local", "--images", "1")
    assert told == {"username": "local", "image_quota": 1, "image_count": 1, "disk_quota": None, "disk_usage": picture.stat().st_size}
    assert "this account may have 1 pictures" in says(capsys, "register", str(picture), "--to", "more", code=1)
    says(capsys, "register", str(picture))
    assert says(capsys, "account", "quota", "local", "--images", "none", "--bytes", "5")["disk_quota"] == 5


def test_registrations_are_registered_too(picture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    says(capsys, "register", str(picture))
    _, mark = filigrane.embed(decode(picture.read_bytes())[0], transactional=True)
    with Services.open(load()) as services:
        public = AccountKeys(services).private(1).public_key()
    file = tmp_path / "marks" / "harbour.lmk"
    file.parent.mkdir()
    file.write_bytes(lmk.seal(mark, public))
    [done] = says(capsys, "register", str(file.parent))
    assert (done["path"], done["watermarked"], done["key_id"], "marked" in done) == ("local/harbour.lmk", True, mark.key_id, False)
    file.write_bytes(file.read_bytes()[:-1])
    assert "the LMK is damaged" in says(capsys, "register", str(file), code=1)


def test_watermarking_needs_a_folder(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "[out_missing]" in says(capsys, "register", str(picture), "--watermark", code=1)


def test_a_marked_copy_keeps_what_the_file_says_and_carries_a_number(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "Ann"
    with Image.open(picture) as image:
        image.save(picture, "JPEG", exif=exif, quality=95)
    arguments = ("register", str(picture), "--watermark", "--out", str(tmp_path), "--payload", "77")
    [done] = says(capsys, *arguments)
    with Image.open(done["marked"]) as copy:
        assert copy.format == "JPEG"
        assert copy.size == (400, 300)
        assert copy.getexif() == exif
    assert detected(done, picture).payload == 77


def test_a_tiff_is_marked_and_registered(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = picture.with_name("scan.tif")
    with Image.open(picture) as image:
        image.save(scan)
    [done] = says(capsys, "register", str(scan), "--watermark", "--out", str(tmp_path / "marked"))
    with Image.open(done["marked"]) as copy:
        assert copy.format == "TIFF"
    assert "this is image/tiff" in says(capsys, "register", str(scan), code=1)


def test_a_folder_of_marked_copies_in_the_folder_of_the_pictures_is_left_out(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = picture.parent
    with Image.open(picture) as image:
        image.save(folder / "scan.tif")
    arguments = ("register", str(folder), "--watermark", "--out", str(folder / "marked"))
    for _ in range(2):
        assert [done["path"] for done in says(capsys, *arguments)] == ["local/harbour.jpg", "local/scan.tif"]


def test_no_picture_is_written_over_by_its_marked_copy(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = picture.read_bytes()
    assert main(["register", str(picture), "--watermark", "--out", str(picture.parent)]) == 1
    assert json.loads(capsys.readouterr().out)[0]["error"]["code"] == "out_is_input"
    assert picture.read_bytes() == before


def test_what_cannot_be_marked_is_said_and_leaves_nothing(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(picture) as image:
        image.save(picture.with_suffix(".gif"))
    assert main(["register", str(picture.parent), "--watermark", "--out", str(tmp_path / "marked")]) == 1
    gif, jpeg = json.loads(capsys.readouterr().out)
    assert gif["error"]["code"] == "unsupported_media"
    assert jpeg["watermarked"]
    assert [file.name for file in (tmp_path / "marked").iterdir()] == ["harbour.jpg"]
    (tmp_path / "file").touch()
    assert main(["register", str(picture), "--watermark", "--out", str(tmp_path / "file")]) == 1
    assert json.loads(capsys.readouterr().out)[0]["error"]["code"] == "file_unwritable"


@pytest.mark.parametrize("wrong", [["--payload", "1"], ["--watermark", "--out", "o", "--payload", "16777216"]])
def test_a_payload_that_cannot_be(wrong: list[str], picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "[payload_invalid]" in says(capsys, "register", str(picture), *wrong, code=1)


# --- batches


@pytest.fixture
def made() -> Batch:
    """A session's batch with one artifact of 3,000,000 bytes."""
    return made_batch(bytes(range(250)) * 12_000)


def test_batches_are_listed(made: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    [listed] = says(capsys, "batch", "list", "--session", str(made.session_id))
    assert (listed["id"], listed["crawl_cycle"]) == (made.id, 1)
    assert "tar" in listed["images"]
    assert "[not_found]" in says(capsys, "batch", "list", "--session", "99", code=1)


def test_a_download_goes_on_where_it_was_cut(made: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    whole = bytes(range(250)) * 12_000
    (out / "images.tar.part").write_bytes(whole[:1_234_567])
    [done] = says(capsys, "batch", "download", str(made.id), "-o", str(out))
    assert done["bytes"] == len(whole)
    assert (out / "images.tar").read_bytes() == whole
    assert [file.name for file in out.iterdir()] == ["images.tar"]
    before = (out / "images.tar").stat().st_mtime_ns
    says(capsys, "batch", "download", str(made.id), "-o", str(out))
    assert (out / "images.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize(("left", "code"), [(b"something else", 1), (bytes(4_000_000), 0)])
def test_what_was_left_and_is_wrong_is_dropped(left: bytes, code: int, made: Batch, tmp_path: Path) -> None:
    (tmp_path / "images.tar.part").write_bytes(left)
    assert main(["batch", "download", str(made.id), "-o", str(tmp_path)]) == code
    assert not (tmp_path / "images.tar.part").exists()
    assert main(["batch", "download", str(made.id), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "images.tar").read_bytes() == bytes(range(250)) * 12_000


def test_a_damaged_artifact_is_1(made: Batch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [stored] = (data / "objects").rglob("images.tar")
    stored.write_bytes(b"x" * made.artifacts[0].length)
    assert "[corrupt]" in says(capsys, "batch", "download", str(made.id), "-o", str(tmp_path / "out"), code=1)
    assert list((tmp_path / "out").iterdir()) == []
