"""A code location with nothing but a schedule that is due every minute."""

from __future__ import annotations

import time

from changed_image import append
from installation import Installation
from toy_location import ToyLocation

NAME = "clock"
_DEFINITIONS = """
import dagster as dg


@dg.op
def nothing(context):
    context.log.info("done nothing")


@dg.job(executor_def=dg.in_process_executor)
def trivial():
    nothing()


minutely = dg.ScheduleDefinition(
    name="minutely",
    job=trivial,
    cron_schedule="* * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
defs = dg.Definitions(jobs=[trivial], schedules=[minutely])
"""


def deploy_clock(installation: Installation) -> ToyLocation:
    """Deploys it from the image of another location, with other code."""
    base = installation.image("orders")
    tag = append(base, f"/app/code/{NAME}/definitions.py", _DEFINITIONS, f"{NAME}-{time.time_ns()}")
    toy = ToyLocation(NAME, installation.namespace, base, installation.images)
    toy.deploy(tag, "--wait", image={"repository": f"{installation.images}/orders"})
    return toy
