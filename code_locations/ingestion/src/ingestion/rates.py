"""Exchange rates from an HTTP API that pages and limits its callers."""

import datetime as dt

import dagster as dg

from forge_platform import (
    RETRY_TRANSIENT,
    WATERMARK_OF,
    ApiResource,
    ApiResponseError,
    IcebergResource,
    RunMode,
    RunModeConfig,
    TableWrite,
    event,
    table_options,
)
from forge_platform.contracts import EXCHANGE_RATES

FIRST_DAY = dt.date(2024, 1, 1)

# Rates of the last days are corrected by their publisher; older ones never change.
CORRECTED_FOR = dt.timedelta(days=7)


@dg.asset(
    kinds={"api", "iceberg"},
    metadata={**table_options(mode="merge", key=EXCHANGE_RATES.key), WATERMARK_OF: "date"},
    retry_policy=RETRY_TRANSIENT,
    description=EXCHANGE_RATES.description,
)
def exchange_rates(
    context: dg.AssetExecutionContext,
    config: RunModeConfig,
    iceberg: IcebergResource,
    exchange_rates_api: ApiResource,
) -> TableWrite:
    """Asks for the days that are new or may have been corrected, and merges them."""
    from ingestion import transforms

    position = iceberg.position(EXCHANGE_RATES.identifier)
    seen = position.watermark
    start = FIRST_DAY
    if seen is not None and config.mode is RunMode.INCREMENTAL:
        start = max(FIRST_DAY, dt.datetime.fromisoformat(seen).date() - CORRECTED_FOR)
    end = dt.datetime.now(dt.UTC).date()
    context.log.info(event("rates", start=start, end=end))
    params = {"start": start.isoformat(), "end": end.isoformat()}
    pages = exchange_rates_api.get_pages(params=params, required=("rates",))
    rates, problems = transforms.parse_rates([rate for page in pages for rate in page["rates"]])
    if problems:
        raise ApiResponseError(
            f"{len(problems)} rates of {exchange_rates_api.base_url} cannot be used, nothing was "
            f"written. The first: {problems[0]}. Ask the API's publisher to correct them."
        )
    newest = rates["date"].max()
    return TableWrite(
        rows=rates,
        watermark=str(newest) if newest else seen,
        is_part=start > FIRST_DAY,
        continues=position,
    )
