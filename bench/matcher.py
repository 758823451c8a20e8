"""Messages per second of one matcher process, and of two: new pictures, and the same ones again on other pages.

    python -m bench.matcher [--registered 300] [--found 300] [--distributed]

Pictures are those that come with scikit-image and generated ones with texture at all scales; every fifth found one is an altered copy of a
registered one. Embedded parts in a folder of the run's own, or (--distributed) Kafka, PostgreSQL and S3 on loopback, as the tests start
them. Memory is the peak of each matcher process, and of each of its decoders.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import skimage.data

from core.events import IMAGES, ImageFound, StoredAt
from core.services import Services
from core.settings import Settings
from core.shards import GROUP
from matcher.pixels import U8
from tests.matcher.pictures import crop, encoded, opened, photo, resize
from tests.matcher.world import World
from tests.servers import kafka, postgres, s3

OUT = Path("bench-out")
PATIENCE: Final = 1800
_BUNDLED: Final = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png")
_AGAIN: Final = 5
"""Further pages for each picture, one message each."""


def registered(count: int) -> Iterator[U8]:
    folder = Path(skimage.data.__file__).parent
    yield from (opened((folder / name).read_bytes()) for name in _BUNDLED[:count])
    yield from (photo(seed) for seed in range(count - len(_BUNDLED)))


def found(count: int, originals: Sequence[U8]) -> Iterator[bytes]:
    """Every fifth one is a copy."""
    for number in range(count):
        if number % 5:
            yield encoded(photo(100_000 + number), "JPEG", quality=80)
        else:
            yield encoded(crop(resize(originals[number // 5 % len(originals)], 0.7), 0.05, 0.05, 0.9), "JPEG", quality=70)


@contextmanager
def parts(folder: Path, *, distributed: bool) -> Iterator[dict[str, str]]:
    """The environment of a process that uses them."""
    values = {"FILIGRANE_DATA": str(folder / "data"), "FILIGRANE_TOPIC_PARTITIONS": "8"}
    with ExitStack() as stack:
        if distributed:
            broker = stack.enter_context(kafka.Kafka(folder / "kafka"))
            bucket = stack.enter_context(s3.shared(folder / "s3"))
            cluster = stack.enter_context(postgres.cluster())
            values |= {"FILIGRANE_BUS_URL": f"kafka://{broker.bootstrap}", "FILIGRANE_SECRET_KEY": uuid4().hex}
            values |= {"FILIGRANE_DATABASE_URL": stack.enter_context(cluster.database())}
            values |= {**bucket.credentials(), **bucket.environment("bench")}
        yield values


class Matchers:
    """Matcher processes, with what they have used when they end."""

    def __init__(self, count: int, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "filigrane.cli", "matcher"]
        everything = {**os.environ, **environment}
        self._processes = [subprocess.Popen(command, env=everything, stderr=subprocess.DEVNULL) for _ in range(count)]

    def cpu(self) -> float:
        """Seconds until now, of them and their decoders."""
        ticks = [int(field) for pid in self._all() for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def peaks(self) -> tuple[int, int]:
        """MB at most so far: of a matcher, of a decoder."""
        own = [process.pid for process in self._processes]
        return max(map(_peak, own)), max((_peak(pid) for pid in self._all() if pid not in own), default=0)

    def _all(self) -> list[int]:
        own = [process.pid for process in self._processes]
        return own + [int(child) for pid in own for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


class Bench:
    """A world with registered pictures, and found ones in stored segments."""

    def __init__(self, services: Services, count_registered: int, count_found: int) -> None:
        self._world = World(services)
        originals = list(registered(count_registered))
        for number, picture in enumerate(originals):
            self._world.register(f"{number}.jpg", encoded(picture, "JPEG", quality=90))
        self._found = list(found(count_found, originals))
        self._places = [place for start in range(0, count_found, 64) for place in self._world.store(self._found[start : start + 64])]
        self._page = 0

    def measure(self, count: int, environment: dict[str, str]) -> list[dict[str, Any]]:
        """New pictures, then the same again, with so many processes."""
        matchers = Matchers(count, environment)
        try:
            self._warm_up()
            new = self._timed(matchers, 1)
            again = self._timed(matchers, _AGAIN)
            matcher, decoder = matchers.peaks()
            memory = {"matcher_mb": matcher, "decoder_mb": decoder}
            return [{"processes": count, "pictures": "new", **new, **memory}, {"processes": count, "pictures": "known", **again, **memory}]
        finally:
            matchers.stop()

    def _warm_up(self) -> None:
        """Every process has loaded what is registered and started a decoder: pictures that are not measured, until all is quiet."""
        for turn in range(3):
            pictures = [encoded(photo(200_000 + 32 * turn + number), "JPEG") for number in range(32)]
            self._world.publish(
                *(self._world.found(data, place) for data, place in zip(pictures, self._world.store(pictures), strict=True))
            )
            self._wait()
            time.sleep(3)

    def _timed(self, matchers: Matchers, times: int) -> dict[str, Any]:
        events = [event for _ in range(times) for event in self._events()]
        cpu, begun = matchers.cpu(), time.monotonic()
        self._world.publish(*events)
        self._wait()
        wall, used = time.monotonic() - begun, matchers.cpu() - cpu
        number = len(events)
        return {
            "messages": number,
            "wall_s": round(wall, 1),
            "per_s": round(number / wall, 1),
            "cpu_ms_each": round(1000 * used / number, 2),
        }

    def _events(self) -> list[ImageFound]:
        self._page += 1
        return [self._event(data, place) for data, place in zip(self._found, self._places, strict=True)]

    def _event(self, data: bytes, place: StoredAt) -> ImageFound:
        return self._world.found(data, place, pages=(f"http://site{place.offset % 97}.example/{self._page}",))

    def _wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while self._world.services.bus.lag(IMAGES, GROUP):
            if time.monotonic() > until:
                raise SystemExit("the matchers do not come to an end")
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--registered", type=int, default=300)
    parser.add_argument("--found", type=int, default=300)
    parser.add_argument("--distributed", action="store_true", help="Kafka, PostgreSQL and S3 instead of the embedded parts")
    parser.add_argument("--quick", action="store_true", help="few pictures")
    options = parser.parse_args()
    counts = (40, 60) if options.quick else (options.registered, options.found)
    with tempfile.TemporaryDirectory() as folder, parts(Path(folder), distributed=options.distributed) as environment:
        os.environ.update(environment)
        with Services.open(Settings()) as services:
            bench = Bench(services, *counts)
            rows = [row for count in (1, 2) for row in bench.measure(count, environment)]
    kind = "distributed" if options.distributed else "embedded"
    report([{"parts": kind, "registered": counts[0], **row} for row in rows], f"matcher-{kind}")


def report(rows: list[dict[str, Any]], name: str) -> None:
    """JSON and a Markdown table, on paper and on the screen; the ratio is to one process with the same kind of pictures."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    one = {row["pictures"]: row["per_s"] for row in rows if row["processes"] == 1}
    titles = [*rows[0], "ratio"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [*row.values(), f"{row['per_s'] / one[row['pictures']]:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    (OUT / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
