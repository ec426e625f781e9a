"""Dagster's UI in a headless Chromium, as tests and pictures use it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.parse import quote

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

PATIENCE_SECONDS = 120
WIDTH, HEIGHT = 1600, 1000

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVER = "chromedriver"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
)
# Nodes that are drawn small have only a name, in the middle of which letters can be missing.
_NODE_NAMES = """
return [...document.querySelectorAll("foreignObject [class*=assetName]")].map(e => e.textContent)
"""
_PICTURE_SIZE = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
_SETTINGS = """
localStorage.setItem("asset-graph-direction", JSON.stringify("vertical"));
localStorage.setItem("dagster-nav-collapsed", "true");
"""

T = TypeVar("T")


def missing_programs() -> str | None:
    """What to install before the UI can be opened; nothing when it can."""
    if any(map(shutil.which, _BROWSERS)) and shutil.which(_DRIVER):
        return None
    return (
        f"No {_BROWSERS[0]} or no {_DRIVER} on the PATH: install both "
        "(Debian: apt install chromium chromium-driver)."
    )


class DagsterUi:
    """Pages of one webserver in a browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    @property
    def text(self) -> str:
        """The page's text."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the page itself; that of the window includes its frame."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, path: str) -> None:
        """Opens a page; what it shows comes later."""
        self.driver.get(f"{self.url}{path}")

    def open_lineage(self, groups: Sequence[str]) -> None:
        """Opens the lineage of all assets, top down, with these groups expanded."""
        self.open("/asset-groups")
        self.driver.execute_script(_SETTINGS)
        expanded = ",".join(f"global@global:{group}" for group in groups)
        self.open(f"/asset-groups?expanded={quote(expanded)}")

    def open_picture(self, label: str) -> tuple[int, int]:
        """Opens a picture in the metadata of the asset's page, and returns its size."""
        self.find(f"//tr[td//text()='{label}']//*[text()='[Show Markdown]']").click()
        picture = self.find("//*[@role='dialog']//img")
        width, height = self.wait_for(
            lambda: self.driver.execute_script(_PICTURE_SIZE, picture), all, f"the picture {label}"
        )
        return width, height

    def find(self, xpath: str) -> WebElement:
        """The first element that can be seen at a path, as soon as there is one."""
        return self.wait_for(lambda: self._visible(xpath), bool, f"at {xpath}")[0]

    def search(self, pattern: str) -> re.Match[str]:
        """Where the page's text matches a pattern, as soon as it does."""
        found = self.wait_for(lambda: re.search(pattern, self.text), bool, pattern)
        assert found
        return found

    def find_assets(self, names: Sequence[str]) -> None:
        """Waits until exactly these assets are shown in the lineage."""
        self.wait_for(self._node_names, lambda shown: _are_names(shown, names), f"{names}")

    def screenshot(self) -> bytes:
        """The page as a PNG, as soon as nothing moves any more."""
        pictures = [b""]

        def is_still(picture: bytes) -> bool:
            pictures.append(picture)
            return picture == pictures[-2]

        return self.wait_for(self.driver.get_screenshot_as_png, is_still, "the same twice")

    def wait_for(self, look: Callable[[], T], is_so: Callable[[T], object], what: str = "") -> T:
        """Looks until it is so, and returns what was seen.

        Raises:
            TimeoutError: it did not become so; the text shows the page.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                seen = look()
                if is_so(seen):
                    return seen
            except StaleElementReferenceException:  # the page was just drawn anew
                continue
            if time.monotonic() > deadline:
                where = f"{self.driver.current_url} does not show {what}"
                raise TimeoutError(f"{where}; seen: {seen}\n{self.text}")
            time.sleep(0.3)

    def _visible(self, xpath: str) -> list[WebElement]:
        found = self.driver.find_elements(By.XPATH, xpath)
        return [element for element in found if element.is_displayed()]

    def _node_names(self) -> list[str]:
        names: list[str] = self.driver.execute_script(_NODE_NAMES)
        return names


def _are_names(shown: Sequence[str], names: Sequence[str]) -> bool:
    """Whether each name is shown, whole or with an ellipsis in it, and nothing else."""
    return len(shown) == len(names) and all(
        any(re.fullmatch(".*".join(map(re.escape, part.split("…"))), name) for part in shown)
        for name in names
    )


@contextmanager
def dagster_ui(url: str) -> Iterator[DagsterUi]:
    """The UI at an address, in a browser of its own with nothing remembered."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, _BROWSERS)))
    for flag in _FLAGS:
        options.add_argument(flag)
    with TemporaryDirectory(prefix="forge-browser-", ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        service = webdriver.ChromeService(shutil.which(_DRIVER))
        driver = webdriver.Chrome(options, service)
        try:
            ui = DagsterUi(driver, url)
            ui.resize(WIDTH, HEIGHT)
            yield ui
        finally:
            driver.quit()
