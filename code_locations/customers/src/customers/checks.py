"""What must hold of the customers' tables."""

import dagster as dg

from forge_platform import IcebergResource, contract_check, row_check
from forge_platform.contracts import CLEAN_CUSTOMERS, RAW_ORDERS

check_no_null_emails = row_check(
    CLEAN_CUSTOMERS.identifier,
    name="check_no_null_emails",
    description="Every clean customer has an e-mail address.",
    wrong=lambda rows: rows.sql("SELECT * FROM self WHERE email IS NULL"),
)

check_positive_totals = row_check(
    "customers.customer_metrics",
    name="check_positive_totals",
    description="No customer has spent less than nothing.",
    wrong=lambda rows: rows.sql("SELECT * FROM self WHERE total_spent < 0"),
)


@dg.asset_check(
    asset="customer_metrics",
    description="Every customer orders in one currency, so amounts can be summed.",
)
def check_single_currency(iceberg: IcebergResource) -> dg.AssetCheckResult:
    """Names customers whose orders are in several currencies."""
    from customers import transforms

    orders = iceberg.view(RAW_ORDERS.identifier).read(["customer_id", "currency"])
    mixed = transforms.mixed_currencies(orders)
    return dg.AssetCheckResult(
        passed=mixed.is_empty(),
        metadata={"customers": mixed.height, "examples": mixed.head(5).to_dicts()},
    )


checks = [
    contract_check(CLEAN_CUSTOMERS),
    check_no_null_emails,
    check_positive_totals,
    check_single_currency,
]
