"""The scheduler process: APScheduler runs the table of jobs. Two of them at once do nothing twice."""

from __future__ import annotations

import threading

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from core.errors import FiligraneError
from core.services import Services
from core.telemetry import counter
from scheduler.jobs import JOBS, Job

log = structlog.get_logger()
runs_total = counter("filigrane_scheduler_runs_total", "Runs of the scheduler's jobs, by outcome.", ["job", "outcome"])


def run(services: Services, stop: threading.Event) -> None:
    """Runs every job at its interval, the first time at once, until `stop` is set. A job that fails runs again at its next time."""
    clock = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
    for job in JOBS:
        clock.add_job(run_job, "interval", (services, job), seconds=job.seconds, id=job.name, next_run_time=services.clock.now())
    clock.start()
    try:
        stop.wait()
    finally:
        clock.shutdown(wait=True)


def run_job(services: Services, job: Job) -> None:
    """One run; whatever goes wrong is logged and counted, and the clock lives on."""
    try:
        job.run(services)
        runs_total.labels(job.name, "done").inc()
    except FiligraneError as error:
        runs_total.labels(job.name, error.code).inc()
        log.warning("scheduler.job_failed", job=job.name, code=error.code, details=error.details)
    except Exception:
        runs_total.labels(job.name, "error").inc()
        log.exception("scheduler.job_failed", job=job.name)
