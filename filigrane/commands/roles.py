"""`filigrane serve`, and one role alone."""

from __future__ import annotations

import argparse

from core import telemetry
from filigrane import roles
from filigrane import serve as serving
from filigrane.commands import settings_of
from filigrane.roles import Options


def serve(given: argparse.Namespace) -> int:
    telemetry.configure("serve")
    serving.serve(settings_of(given), given.host, given.port)
    return 0


def run(given: argparse.Namespace) -> int:
    options = {name: value for name in Options.__slots__ if (value := getattr(given, name, None)) is not None}
    roles.run(given.role, settings_of(given), Options(**options))
    return 0
