"""Images that differ from one that is there by a few lines, built and pushed within seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from on_cluster import run


def append(image: str, file: str, text: str, tag: str) -> str:
    """Pushes an image with a text added to the end of one of its files, and returns its tag.

    Args:
        image: what it is built from.
        file: path in the image; made if it is not there.
        text: what is added.
        tag: of the new image.
    """
    made = f"{image.rpartition(':')[0]}:{tag}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").write_text(text)
        (folder / "Dockerfile").write_text(
            f"FROM {image}\nUSER 0\nCOPY text /tmp/text\n"
            f"RUN mkdir -p $(dirname {file}) && cat /tmp/text >> {file} && "
            f"chmod -R a+rX $(dirname {file})\nUSER 10001:10001\n"
        )
        run("docker", "build", "--quiet", "--tag", made, name)
    run("docker", "push", "--quiet", made)
    return tag
