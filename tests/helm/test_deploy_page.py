"""The values that docs/deploy.md shows are accepted by the charts."""

from __future__ import annotations

import re

import yaml
from charts import CODE_LOCATION, PLATFORM, ROOT, location_values, one, template

BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)


def block(start: str) -> dict[str, object]:
    (found,) = [yaml.safe_load(text) for text in BLOCKS if text.startswith(start)]
    return dict(found)


def test_the_platforms_values_are_all_that_must_be_set() -> None:
    objects = template(PLATFORM, values=block("dagster:"))
    assert one(objects, "Deployment", "dagster-daemon")


def test_a_teams_values_are_accepted() -> None:
    values = location_values(block("# code_locations/orders/deploy/prod.yaml"))
    assert one(template(CODE_LOCATION, values=values), "Deployment")
