"""The object store, in a folder and on S3 servers, in one run: puts, joining, reading, memory, and the calls that a server bills.

    python -m bench.store [--quick]

The S3 servers are those of the tests, on loopback: versitygw and SeaweedFS. The machine's disk and cores are shared by server and client.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from core.objectstore import ObjectStore
from core.objectstore.s3.connection import calls
from core.services import Services
from core.settings import load
from tests.servers import s3

OUT = Path("bench-out")
MB = 1 << 20
SEGMENT = 8 * MB
THREADS = 8
"""As many as the crawler stores with."""

Result = dict[str, Any]


def measure(name: str, quick: bool) -> list[Result]:
    """One row per thing that is done, on the store that the environment names."""
    segments = 10 if quick else 50
    with Services.open(load()) as services:
        store = services.store
        store.put("warm", b"")
        rows = [
            _row(name, "put 4 KB, one thread", 200, 4096, lambda: _puts(store, "one", 200, 4096, 1)),
            _row(name, f"put 4 KB, {THREADS} threads", 1000, 4096, lambda: _puts(store, "small", 1000, 4096, THREADS)),
            _row(name, f"put 8 MB, {THREADS} threads", segments, SEGMENT, lambda: _puts(store, "segment", segments, SEGMENT, THREADS)),
        ]
        keys = [f"segment/{number}" for number in range(segments)]
        rows.append(
            _row(name, f"join {segments} segments of 8 MB", segments, SEGMENT, lambda: store.join(keys, "joined", tail=bytes(1024)))
        )
        rows.append(_row(name, "stream what was joined", segments, SEGMENT, lambda: _read(store, "joined")))
        rows.append(_row(name, "closing: TAR of 2 MB, WARC of 1 MB, journal", 3, MB, lambda: _close(store)))
        rows += [_memory(name, what, 128 if quick else 1024) for what in ("put", "join")]
        store.delete([info.key for info in store.list("")])
    return rows


def _row(name: str, what: str, count: int, size: int, action: Callable[[], object]) -> Result:
    before, started = _called(), time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    made = {operation: number - before.get(operation, 0) for operation, number in _called().items()}
    return {
        "store": name,
        "what": what,
        "count": count,
        "bytes": count * size,
        "seconds": round(seconds, 3),
        "per_s": round(count / seconds, 1),
        "mb_per_s": round(count * size / MB / seconds, 1),
        "calls": {operation: number for operation, number in made.items() if number},
    }


def _called() -> dict[str, int]:
    """S3 operation -> how often it was called so far."""
    return {
        sample.labels["operation"]: int(sample.value)
        for metric in calls.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


def _puts(store: ObjectStore, folder: str, count: int, size: int, threads: int) -> None:
    data = os.urandom(size)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: store.put(f"{folder}/{number}", data), range(count)))


def _read(store: ObjectStore, key: str) -> None:
    for _ in store.stream(key):
        pass


def _close(store: ObjectStore) -> None:
    """What `crawler.publish.store` puts when pictures and pages close together."""
    for name, size in (("0.tar", 2 * MB), ("1.warc.gz", MB), ("0.journal", 20_000)):
        store.put(f"crawl/1/1/1/{name}", os.urandom(size))


def _memory(name: str, what: str, megabytes: int) -> Result:
    """How much more memory a process needs at its peak to put a large file, or to join a large object of parts too small to be copied."""
    command = [sys.executable, "-m", "bench.store", "--peak", what, "--megabytes", str(megabytes)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return {"store": name, "what": f"{what} {megabytes} MB, peak memory", "bytes": megabytes * MB, **json.loads(said)}


def peak(what: str, megabytes: int) -> Result:
    """MB that the largest resident set grew by."""
    with Services.open(load()) as services, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large"
        with file.open("wb") as stream:
            for _ in range(megabytes):
                stream.write(os.urandom(MB))
        services.store.put("peak/warm", bytes(SEGMENT))
        part = 4 * MB
        keys = [f"peak/{number}" for number in range(megabytes * MB // part)] if what == "join" else []
        for key in keys:
            services.store.put(key, os.urandom(part))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _largest(), time.perf_counter()
        if what == "put":
            services.store.put("peak/large", file)
        else:
            services.store.join(keys, "peak/large")
        seconds = time.perf_counter() - started
        grown = _largest() - before
    return {"seconds": round(seconds, 2), "mb_per_s": round(megabytes / seconds, 1), "peak_mb": round(grown, 1)}


def _largest() -> float:
    """MB of this process's largest resident set (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller objects")
    parser.add_argument("--peak", choices=("put", "join"), help=argparse.SUPPRESS)
    parser.add_argument("--megabytes", type=int, default=1024, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(options.peak, options.megabytes)))
        return
    rows: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        environments = {"folder": {"FILIGRANE_STORE_URL": ""}}
        for kind in (s3.Versitygw, s3.SeaweedFS):
            server = opened.enter_context(kind(Path(folder) / kind.__name__))
            environments[kind.__name__] = server.bucket().environment("bench")
        for name, values in environments.items():
            with _environment({**values, "FILIGRANE_DATA": str(Path(folder) / f"data-{name}")}):
                rows += measure(name, options.quick)
    report(rows)


def report(rows: Sequence[Result]) -> None:
    """JSON and a Markdown table, on paper and on the screen."""
    OUT.mkdir(exist_ok=True)
    (OUT / "store.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = ["| store | what | seconds | per s | MB/s | peak MB more | calls |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        made = ", ".join(f"{number} {operation}" for operation, number in sorted(row.get("calls", {}).items()))
        cells = [row["store"], row["what"], row["seconds"], row.get("per_s", ""), row.get("mb_per_s", ""), row.get("peak_mb", ""), made]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    (OUT / "store.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
