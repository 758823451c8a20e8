"""What is registered, divided: each shard is a consumer group that holds a part of it (docs/adr/0010).

One shard, the default, reads `images` itself. Of several, the group on `images` decodes each picture once and publishes its features, and
every shard reads them all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from core.bus import Bus
from core.events import FEATURES, IMAGES

GROUP: Final = "matcher"
"""The group on `images`; without shards also that on `searches`."""


class Shard(NamedTuple):
    """The registered pictures whose id leaves `number` when divided by `of`."""

    number: int = 0
    of: int = 1

    def holds(self, picture: int) -> bool:
        return picture % self.of == self.number

    @property
    def alone(self) -> bool:
        return self.of == 1

    @property
    def group(self) -> str:
        """Whose members share the work of this shard."""
        return GROUP if self.alone else f"{GROUP}-{self}"

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


WHOLE: Final = Shard()


def lags(bus: Bus, shards: int) -> dict[str, int]:
    """Messages of pictures that are still to be worked on, by what reads them: `images`, and each shard."""
    readers = {str(shard): shard.group for shard in (Shard(number, shards) for number in range(shards)) if not shard.alone}
    return {IMAGES: bus.lag(IMAGES, GROUP)} | {name: bus.lag(FEATURES, group) for name, group in readers.items()}
