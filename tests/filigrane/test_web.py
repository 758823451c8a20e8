"""Without a `serve`: crawled first, registered later, and searched among what was crawled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import select

from core.models import Match
from core.repo import accounts, crawled
from core.services import Services
from core.settings import Settings
from tests.matcher.pictures import encoded, mirror, photo
from tests.site import Reply, Site


def filigrane(data: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "filigrane.cli", *arguments, "--data", str(data)]
    environment = {**os.environ, "FILIGRANE_ALLOW_NETWORKS": "127.0.0.0/8", "FILIGRANE_SEGMENT_SECONDS": "0.5"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_registered_after_the_crawl_is_matched_and_what_was_crawled_is_searched(tmp_path: Path) -> None:
    data, original, flipped = tmp_path / "data", tmp_path / "a.jpg", tmp_path / "b.jpg"
    original.write_bytes(encoded(photo(1), "JPEG", quality=95))
    flipped.write_bytes(encoded(mirror(photo(1)), "JPEG"))
    routes = {
        "/": Reply(b'<img src="/copy.jpg"><img src="/other.jpg">'),
        "/copy.jpg": Reply(encoded(photo(1), "JPEG", quality=60), content_type="image/jpeg"),
        "/other.jpg": Reply(encoded(photo(2), "JPEG", quality=60), content_type="image/jpeg"),
    }
    with Site(routes) as site:
        filigrane(data, "crawl", f"{site.url}/", "--download-delay", "0")
    filigrane(data, "register", str(original))
    with Services.open(Settings(data=data)) as services, services.database.read() as tx:
        (file,) = crawled.visible(tx, accounts.by_name(tx, accounts.LOCAL).id)
        assert (file.pictures, file.fresh) == (2, False)
        assert [(match.query_url, match.verdict) for match in tx.scalars(select(Match))] == [(f"{site.url}/copy.jpg", "copy")]
    found = filigrane(data, "search", str(flipped), "--explain", str(tmp_path / "why.png"))
    own, hit = found["matches"]
    assert (found["candidates"], own["why"]["correspondences"] >= own["why"]["inliers"] > 10) == (1, True)
    with Image.open(tmp_path / "why.png") as sheet:
        assert (sheet.format, sheet.width > 2 * sheet.height) == ("PNG", True)
    assert (own["image"]["type"], own["paths"]) == ("registered", hit["paths"])
    assert (hit["image"]["type"], hit["image"]["url"], hit["image"]["page_url"]) == ("web", f"{site.url}/copy.jpg", f"{site.url}/")
    assert (hit["mirrored"], hit["paths"][0]["path"]) == (True, "local/a.jpg")
