"""What must hold of the tables that other code locations read."""

from forge_platform import contract_check
from forge_platform.contracts import (
    EXCHANGE_RATES,
    RAW_CUSTOMER_FILES,
    RAW_CUSTOMERS,
    RAW_ORDERS,
)

checks = [
    contract_check(contract)
    for contract in (RAW_CUSTOMERS, RAW_ORDERS, RAW_CUSTOMER_FILES, EXCHANGE_RATES)
]
