"""The three jobs, one after the other, and what a change of the source does."""

from __future__ import annotations

import pytest
from whole_platform import Platform


@pytest.fixture(scope="module")
def filled(platform: Platform) -> Platform:
    for location, partition in (("ingestion", None), ("customers", None), ("orders", "2024-01-02")):
        result = platform.run(location, partition_key=partition)
        assert result.success
    return platform


def test_all(filled: Platform) -> None:
    assert filled.rows("ingestion.raw_customers").height == 23_570
    assert filled.rows("ingestion.raw_orders").height == 69_659
    for t in ["ingestion.rejected_rows","ingestion.loaded_files","ingestion.raw_customer_files","ingestion.exchange_rates","customers.clean_customers","customers.rejected_customers","customers.customer_metrics","customers.customer_clv","orders.enriched_orders","orders.daily_order_summary","orders.sales_daily_summary"]:
        print(t, filled.rows(t))
        print({k:v for k,v in filled.metadata(t.split(".")[1]).items() if k not in("sample","cohort_retention","revenue_curve","dagster/column_schema")})
    assert 0
