"""The running demo, which several folders of tests look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from running_demo import Change, End, RunningDemo, running_demo

# What a test can ask for, in the order in which it happens.
STAGES = ("demo", "demo_change", "demo_end")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the demo come last and in its order, so that nothing else runs beside it."""
    items.sort(key=_stage)
    for item in items:
        if _stage(item):
            item.add_marker(pytest.mark.timeout(900))


def _stage(item: pytest.Item) -> int:
    asked = (stage for stage, fixture in enumerate(STAGES, 1) if _asks_for(item, fixture))
    return max(asked, default=0)


def _asks_for(item: pytest.Item, fixture: str) -> bool:
    names: Sequence[str] = getattr(item, "fixturenames", ())
    return fixture in names


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest) -> Iterator[RunningDemo]:
    """The demo when it has come to rest, in a folder of its own."""
    with TemporaryDirectory(prefix="forge-demo-") as folder, running_demo(Path(folder)) as running:
        # A change takes two minutes of waiting for a sensor; the UI is looked at meanwhile.
        if any(_asks_for(item, "demo_change") for item in request.session.items):
            running.begin_change()
        yield running


@pytest.fixture(scope="session")
def demo_change(demo: RunningDemo) -> Change:
    """A change of the source that has arrived everywhere."""
    return demo.finish_change()


@pytest.fixture(scope="session")
def demo_end(demo: RunningDemo) -> End:
    """The end of the demo: after it there is only what it leaves on disk."""
    return demo.interrupt()
