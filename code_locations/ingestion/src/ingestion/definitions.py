"""The code location ``ingestion``."""

from forge_platform import (
    api_resource,
    build_definitions,
    database_resource,
    store_resource,
)
from ingestion import automation, checks, databases, files, rates

defs = build_definitions(
    "ingestion",
    assets=[
        databases.raw_customers,
        databases.raw_orders,
        databases.incremental_orders,
        files.raw_customer_files,
        rates.exchange_rates,
    ],
    checks=checks.checks,
    jobs=[automation.ingestion_job],
    schedules=[automation.hourly_schedule, automation.deleted_rows_schedule],
    sensors=[
        automation.new_data_sensor,
        automation.s3_file_sensor,
        automation.new_file_sensor,
    ],
    resources={
        "database": database_resource("DB"),
        "landing": store_resource("LANDING_URI"),
        "exchange_rates_api": api_resource("EXCHANGE_RATES_URL"),
    },
)
