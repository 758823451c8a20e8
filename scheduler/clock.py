"""The clock: runs the table of jobs until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from core import leases
from core.errors import FiligraneError
from core.monitor import beat
from core.services import Services
from core.telemetry import counter
from scheduler.jobs import JOBS, Job

_TTL: Final = 60.0
log = structlog.get_logger()
runs_total = counter("filigrane_scheduler_runs_total", "Runs of jobs by how they ended.", ["job", "outcome"])
done_total = counter("filigrane_scheduler_done_total", "What the jobs did: sessions woken, messages sent, things removed.", ["job"])


def run(services: Services, stop: threading.Event, jobs: Sequence[Job] = JOBS) -> None:
    """Runs each job at once and then at its interval, never twice at a time, until `stop` is set; returns when all have come to rest."""
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a run that is left out because the last one still runs is no news
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None})
    holder = f"scheduler-{uuid4().hex}"
    for job in jobs:
        scheduler.add_job(
            run_job, "interval", (services, stop, job, holder), seconds=job.seconds, id=job.name, next_run_time=datetime.now(UTC)
        )
    scheduler.start()
    log.info("scheduler.running", jobs=len(jobs))
    stop.wait()
    scheduler.shutdown(wait=True)


def run_job(services: Services, stop: threading.Event, job: Job, holder: str) -> None:
    """One run of the job. Whatever goes wrong is logged and counted; the job comes again."""
    beat()
    try:
        if not _is_ours(services, job, holder):
            runs_total.labels(job.name, "elsewhere").inc()
            return
        for count in job.run(services):
            done_total.labels(job.name).inc(count)
            if stop.is_set() or not _is_ours(services, job, holder):
                break
    except FiligraneError as error:
        runs_total.labels(job.name, error.code).inc()
        log.warning("scheduler.job_failed", job=job.name, code=error.code, error=error.details)
    except Exception:
        runs_total.labels(job.name, "internal").inc()
        log.exception("scheduler.job_failed", job=job.name)
    else:
        runs_total.labels(job.name, "ok").inc()


def _is_ours(services: Services, job: Job, holder: str) -> bool:
    """Takes or renews the job's lease. It outlasts the interval, so a job stays with one scheduler until that is gone."""
    if not job.alone or not services.database.shared:
        return True
    with services.database.write() as tx:
        ttl = max(_TTL, 1.5 * job.seconds)
        return leases.acquire(tx, leases.of_job("scheduler", job.name), holder, ttl, services.clock.now()) is not None
