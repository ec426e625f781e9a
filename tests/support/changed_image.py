"""Images that differ a little from one that is there, and what they add to a registry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
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
    command = (
        f"mkdir -p $(dirname {file}) && cat /tmp/text >> {file} && chmod -R a+rX $(dirname {file})"
    )
    return change(image, command, tag, text)


def change(image: str, command: str, tag: str, text: str = "") -> str:
    """Pushes an image in which a command was run by root, and returns its tag.

    Args:
        image: what it is built from.
        command: of a shell; finds the text in ``/tmp/text``.
        tag: of the new image.
        text: what the command needs.
    """
    made = f"{image.rpartition(':')[0]}:{tag}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").write_text(text)
        (folder / "Dockerfile").write_text(
            f"FROM {image}\nUSER 0\nCOPY text /tmp/text\nRUN {command}\nUSER 10001:10001\n"
        )
        run("docker", "build", "--quiet", "--tag", made, name)
    run("docker", "push", "--quiet", made)
    return tag


def layers(image: str) -> Mapping[str, int]:
    """The layers of an image in its registry: digest, and compressed size in bytes."""
    manifest = json.loads(run("docker", "manifest", "inspect", "--insecure", image))
    return {layer["digest"]: layer["size"] for layer in manifest["layers"]}
