"""A page of the documentation, and somebody who follows it word by word."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from pathlib import Path
from textwrap import dedent

import yaml
from on_cluster import ROOT

from forge_platform.helm_values import Values, merge, render

PARTS = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^ *```(?P<language>bash|yaml)\n(?P<block>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Page:
    """The page's blocks, with the test's names.

    Attributes:
        blocks: heading and language to what stands there, in the page's order.
    """

    blocks: Mapping[tuple[str, str], Sequence[str]]

    @classmethod
    def read(cls, path: str, names: Mapping[str, str]) -> Page:
        """The page with its examples replaced; each of them must be there."""
        text = (ROOT / path).read_text()
        for example, given in names.items():
            assert example in text, example
            text = text.replace(example, given)
        blocks: dict[tuple[str, str], list[str]] = defaultdict(list)
        heading = ""
        for found in PARTS.finditer(text):
            heading = found["heading"] or heading
            if found["block"]:
                blocks[heading, found["language"]].append(dedent(found["block"]))
        return cls(blocks)

    def bash(self, *headings: str) -> str:
        """The commands below some headings."""
        return "".join(chain(*(self.blocks[heading, "bash"] for heading in headings)))

    def yaml(self, heading: str, values: Values) -> str:
        """The values below a heading, in one file, over some others."""
        maps = map(yaml.safe_load, self.blocks[heading, "yaml"])
        return render(reduce(merge, maps, values))


@dataclass(frozen=True)
class Reader:
    """Somebody who types what the page says, in a checkout of the repository."""

    checkout: Path
    variables: Mapping[str, str]

    def types(self, commands: str) -> None:
        """Runs a block."""
        installed = f"{self.checkout}/.venv/bin:{self.checkout}/.tools/bin"
        path = f"{installed}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **self.variables}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],  # noqa: S607 - as its reader has it
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"

    def writes(self, name: str, text: str) -> None:
        """Writes a file of values."""
        (self.checkout / name).write_text(text)
