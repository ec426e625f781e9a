"""The code location ``customers``."""

from customers import assets, automation, checks
from forge_platform import build_definitions, database_resource, store_resource
from forge_platform.contracts import RAW_CUSTOMER_FILES, RAW_CUSTOMERS, RAW_ORDERS

defs = build_definitions(
    "customers",
    assets=[
        assets.clean_customers,
        assets.customer_metrics,
        assets.customer_clv,
        assets.customer_metrics_serving,
        assets.customer_metrics_export,
    ],
    reads=[RAW_CUSTOMERS, RAW_CUSTOMER_FILES, RAW_ORDERS],
    checks=checks.checks,
    jobs=[automation.customer_pipeline],
    schedules=[automation.daily_customer_schedule, automation.adaptive_schedule],
    resources={
        "serving_database": database_resource("SERVING_DB"),
        "exports": store_resource("EXPORT_URI"),
    },
)
