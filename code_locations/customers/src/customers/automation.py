"""When the customers' assets run beside their own automation conditions."""

import dagster as dg

from forge_platform import RunMode, current_environment, location_tags

FULL_HOURS = range(6)

customer_pipeline = dg.define_asset_job(
    "customer_pipeline",
    selection=dg.AssetSelection.groups("customers"),
    tags=location_tags("customers"),
    description="All customer assets, from cleaning to the serving copy and the export.",
)

daily_customer_schedule = dg.ScheduleDefinition(
    name="daily_customer_schedule",
    job=customer_pipeline,
    cron_schedule="0 2 * * *",
    default_status=current_environment().schedule_status,
    description="Runs the customer pipeline daily at 2 AM.",
)


@dg.schedule(
    job=customer_pipeline,
    cron_schedule="0 */4 * * *",
    default_status=current_environment().schedule_status,
    description="Every 4 hours: everything between 0 and 6 h, else only what changed.",
)
def adaptive_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Chooses the mode by the hour that the tick was planned for, not by the clock."""
    night = context.scheduled_execution_time.hour in FULL_HOURS
    mode = RunMode.FULL if night else RunMode.INCREMENTAL
    config = {"config": {"mode": mode.name}}
    return dg.RunRequest(
        run_config={"ops": {"clean_customers": config, "customer_metrics": config}},
        tags={"forge/mode": mode.value},
    )
