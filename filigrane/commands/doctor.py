"""`filigrane doctor`: what is wrong, and what to do."""

from __future__ import annotations

import argparse
import http.client
import logging
import sys

from core.errors import FiligraneError, Unavailable
from core.settings import Settings
from filigrane.commands import result, settings_of

_ASK: float = 8.0


def doctor(given: argparse.Namespace) -> int:
    if given.quick:
        return quick(settings_of(given))
    from core import telemetry

    telemetry.configure("doctor", level=logging.ERROR)
    if given.accept_restored:
        return accept_restored(settings_of(given))
    return examine(given)


def examine(given: argparse.Namespace) -> int:
    """Prints each finding as it comes; exit code 0 all is well, 1 something is to be looked after, 2 something does not work."""
    from filigrane.doctor import Finding, exit_code
    from filigrane.doctor import examine as findings_of

    found: list[Finding] = []
    try:
        for finding in findings_of(settings_of(given)):
            found.append(finding)
            if not given.json:
                sys.stdout.write(_line(*finding) + "\n")
                sys.stdout.flush()
    except FiligraneError as error:
        found.append(Finding("settings", "failed", error.details, "see docs/settings.md"))
        if not given.json:
            sys.stdout.write(_line(*found[-1]) + "\n")
    if given.json:
        result([finding._asdict() for finding in found])
    return exit_code(found)


def _line(check: str, state: str, said: str, advice: str) -> str:
    return f"{state:8} {check:13} {said}" + (f" -> {advice}" if advice else "")


def quick(settings: Settings) -> int:
    """Whether the role that answers at FILIGRANE_METRICS_LISTEN is alive; for a container's health check. Exit code 0 or 1."""
    if not settings.metrics_listen:
        raise Unavailable("FILIGRANE_METRICS_LISTEN is not set: there is nobody to ask", code="settings_invalid")
    host, _, port = settings.metrics_listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104
    connection = http.client.HTTPConnection(host, int(port), timeout=_ASK)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"filigrane: {settings.metrics_listen} does not answer: {error}\n")
        return 1
    finally:
        connection.close()


def accept_restored(settings: Settings) -> int:
    """Makes a restored database one with object store and bus again; prints what was done."""
    from core.reconcile import reconcile
    from core.services import Services
    from filigrane.serve import Running, lock

    with lock(settings.data, Running(0, "filigrane doctor")), Services.open(settings, restored=True) as services:
        result(reconcile(services)._asdict())
    return 0
