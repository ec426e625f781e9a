"""Takes the pictures of the documentation from a running demo, whose address is given.

make demo                                                       # in another terminal
.venv/bin/python tests/browser/pictures.py http://127.0.0.1:3000
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from dagster_ui import DagsterUi, dagster_ui
from PIL import Image

ROOT = Path(__file__).parents[2]
COLOURS = 256


def main() -> None:
    """Takes them all."""
    [url] = sys.argv[1:]
    with dagster_ui(url) as ui:
        upstream(ui, "sales_daily_summary", 7)
        lineage(ui)
        picture(ui, "customer_clv", "cohort_retention", "clv")
        picture(ui, "sales_daily_summary", "revenue_curve", "sales")


def lineage(ui: DagsterUi) -> None:
    """The lineage of all assets; closing the list beside it leaves it as large as it was."""
    ui.resize(1900, 700)
    ui.open_lineage(
        [path.parent.name for path in (ROOT / "code_locations").glob("*/pyproject.toml")]
    )
    ui.find("//button[.//*[@aria-label='panel_show_right']]").click()
    ui.resize(1600, 700)
    save(ui, "lineage")


def upstream(ui: DagsterUi, asset: str, assets: int) -> None:
    """All that one asset is made from, which leaves room for what is known of each."""
    ui.resize(1400, 1000)
    ui.open(f"/assets/{asset}?view=lineage&lineageScope=upstream&lineageDepth=5")
    ui.search(rf"(Materialized(.*\n)*){{{assets}}}")
    save(ui, "upstream")


def picture(ui: DagsterUi, asset: str, label: str, name: str) -> None:
    """An asset's page with a picture of its metadata."""
    ui.resize(1600, 1000)
    ui.open(f"/assets/{asset}?view=events")
    ui.open_picture(label)
    save(ui, name)


def save(ui: DagsterUi, name: str) -> None:
    """Saves what is seen, in few colours."""
    image = Image.open(io.BytesIO(ui.screenshot())).convert("RGB")
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(
        ROOT / "docs" / "pictures" / f"{name}.png", optimize=True
    )


if __name__ == "__main__":
    main()
