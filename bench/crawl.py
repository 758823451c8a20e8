"""Responses per CPU second of a crawl, beside a bare Scrapy CrawlSpider that writes nothing, on the same site in the same run.

    python -m bench.crawl --site FOLDER [--pairs 3]

FOLDER is any tree of static pages (a Debian package's manual, say); without one a small site is generated. Both crawlers run as
processes of their own with download_delay 0; CPU is user + system of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.site import StaticSite, generate

OUT = Path("bench-out")
_PEER = """
import sys
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule
import scrapy

class Peer(CrawlSpider):
    name = "peer"
    start_urls = [sys.argv[1]]
    rules = [Rule(LinkExtractor(), callback="page", follow=True)]
    seen = set()
    def parse_start_url(self, response):
        return self.page(response)

    def page(self, response):
        if not isinstance(response, scrapy.http.TextResponse):
            return
        for source in response.css("img::attr(src)").getall():
            url = response.urljoin(source)
            if url not in self.seen:
                self.seen.add(url)
                yield scrapy.Request(url, self.image, dont_filter=True)

    def image(self, response):
        pass

process = AsyncCrawlerProcess({"LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False, "ROBOTSTXT_OBEY": False})
process.crawl(Peer)
process.start()
"""


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds of the process and its descendants, peak MB of the largest of them)"""
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command[:3])} failed:\n{said.read().decode(errors='replace')[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure_peer(site: StaticSite, url: str) -> dict[str, Any]:
    cpu, peak = _run([sys.executable, "-c", _PEER, url], dict(os.environ))
    return _result("bare CrawlSpider, writes nothing", site.take_count(), cpu, peak)


def measure_filigrane(site: StaticSite, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as data:
        environment = dict(os.environ, FILIGRANE_ALLOW_NETWORKS="127.0.0.0/8", FILIGRANE_DATA=data)
        command = [sys.executable, "-m", "filigrane.cli", "crawl", url, "--download-delay", "0", "--crawl-delay", "600", "--no-search"]
        cpu, peak = _run(command, environment)
    return _result("filigrane crawl, all artifacts", site.take_count(), cpu, peak)


def _result(name: str, answers: int, cpu: float, peak: float) -> dict[str, Any]:
    return {"crawler": name, "responses": answers, "cpu_s": round(cpu, 2), "per_cpu_s": round(answers / cpu, 1), "peak_mb": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--site", type=Path, help="folder to serve; without it a site is generated")
    parser.add_argument("--start", default="index.html")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one pair")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = options.site or generate(Path(folder), pages=200, images=300)
        with StaticSite(site) as served:
            url = f"{served.url}/{options.start}"
            pairs = [(measure_peer(served, url), measure_filigrane(served, url)) for _ in range(1 if options.quick else options.pairs)]
    report(pairs)


def report(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """JSON and a Markdown table, on paper and on the screen."""
    OUT.mkdir(exist_ok=True)
    (OUT / "crawl.json").write_text(json.dumps(pairs, indent=1) + "\n")
    lines = ["| run | crawler | responses | CPU s | responses per CPU s | peak MB | ratio |", "|---|---|---|---|---|---|---|"]
    for number, pair in enumerate(pairs, 1):
        for row in pair:
            ratio = row["per_cpu_s"] / pair[0]["per_cpu_s"]
            cells = [number, row["crawler"], row["responses"], row["cpu_s"], row["per_cpu_s"], row["peak_mb"], f"{ratio:.2f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    (OUT / "crawl.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
