"""When data comes in: every hour, when the source has changed, and when files are dropped."""

import dagster as dg

import forge_platform
from forge_platform import current_environment, file_sensor, location_tags
from ingestion.databases import CUSTOMERS, ORDERS

DATABASE_ASSETS = ("raw_customers", "raw_orders", "incremental_orders")
FILE_ASSETS = ("rejected_rows", "raw_customer_files", "loaded_files")

environment = current_environment()

ingestion_job = dg.define_asset_job(
    "ingestion_job",
    selection=dg.AssetSelection.groups("ingestion"),
    tags=location_tags("ingestion"),
    description="Ingests from all sources: database, files and API.",
)

hourly_schedule = dg.ScheduleDefinition(
    name="hourly_schedule",
    job=ingestion_job,
    cron_schedule="0 * * * *",
    default_status=environment.schedule_status,
    description="Hourly ingestion of everything.",
)

COMPARED_ASSETS = ("raw_customers", "raw_orders")


@dg.schedule(
    job=ingestion_job,
    cron_schedule="30 4 * * *",
    default_status=environment.schedule_status,
    description="Compares the keys of source and tables, and removes rows that are gone.",
)
def deleted_rows_schedule() -> dg.RunRequest:
    """Requests the assets that keep the source's current state."""
    compared = {"config": {"compare_keys": True}}
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(name) for name in COMPARED_ASSETS],
        run_config={"ops": dict.fromkeys(COMPARED_ASSETS, compared)},
    )


new_data_sensor = forge_platform.new_data_sensor(
    "new_data_sensor",
    [CUSTOMERS, ORDERS],
    job_name=ingestion_job.name,
    assets=DATABASE_ASSETS,
    default_status=environment.sensor_status,
)

s3_file_sensor = file_sensor(
    name="s3_file_sensor",
    scheme="s3",
    job_name=ingestion_job.name,
    assets=FILE_ASSETS,
    default_status=environment.sensor_status,
)

new_file_sensor = file_sensor(
    name="new_file_sensor",
    scheme="file",
    job_name=ingestion_job.name,
    assets=FILE_ASSETS,
    default_status=environment.sensor_status,
)
