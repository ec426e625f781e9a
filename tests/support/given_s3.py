"""An S3 endpoint that is there already, in place of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Mapping

from forge_platform.testing import S3Server

VARIABLE = "FORGE_TEST_S3"
_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


class GivenS3(S3Server):
    """The endpoint that ``FORGE_TEST_S3`` names; the key is in the AWS variables."""

    @property
    def endpoint_url(self) -> str:
        """Where clients find it."""
        return os.environ[VARIABLE]

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which every S3 client of a process uses it."""
        given = {name: os.environ[name] for name in _NAMES}
        return {
            **given,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": given[_NAMES[2]],
        }

    def start(self) -> None:
        """It runs."""

    def stop(self) -> None:
        """It goes on."""
