"""The code location ``orders``."""

from forge_platform import build_definitions
from forge_platform.contracts import CLEAN_CUSTOMERS, EXCHANGE_RATES, RAW_ORDERS
from orders import assets, automation, checks

defs = build_definitions(
    "orders",
    assets=[assets.enriched_orders, assets.daily_order_summary, assets.sales_daily_summary],
    reads=[RAW_ORDERS, CLEAN_CUSTOMERS, EXCHANGE_RATES],
    checks=checks.checks,
    jobs=[automation.transformation_job],
    schedules=[automation.daily_schedule],
    sensors=[automation.restated_days_sensor],
)
