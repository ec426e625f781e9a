"""A platform on a cluster, and what its users do with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from on_cluster import Namespace, run

DEV_SERVER = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Installation:
    """What was installed.

    Attributes:
        images: registry and prefix of the images.
    """

    namespace: Namespace
    images: str

    def image(self, location: str) -> str:
        """The image that a location is served from."""
        return self._image(f"component=user-deployments,deployment={location}")

    @property
    def platform_image(self) -> str:
        """The image of the control plane."""
        return self._image("component=dagster-webserver")

    @property
    def demo_image(self) -> str:
        """The image with the demo's data."""
        (rates,) = self.namespace.get("pod", "app.kubernetes.io/component=dev-rates")
        return str(rates["spec"]["containers"][0]["image"])

    def empty_database(self, name: str) -> None:
        """Makes a database anew on the server of the development cluster."""
        for statement in (
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name}",
        ):
            self.psql(statement)

    def psql(self, statement: str) -> None:
        """Has that server execute a statement."""
        command = f'PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U dagster -c "{statement}"'
        self.namespace.kubectl("exec", "dev-postgres-0", "--", "sh", "-c", f"{command} postgres")

    def admit_visitors(self) -> None:
        """Lets other namespaces use the servers of the development cluster."""
        servers = {"key": DEV_SERVER, "operator": "In", "values": ["dev-postgres", "dev-s3"]}
        self.namespace.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "visitors"},
                "spec": {
                    "podSelector": {"matchExpressions": [servers]},
                    "ingress": [{"from": [{"namespaceSelector": {}}]}],
                },
            }
        )

    def _image(self, selector: str) -> str:
        (deployment,) = self.namespace.get("deployment", selector)
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def release(self, location: str, tag: str, folder: Path, **values: object) -> None:
        """Releases an image that is there, with values of its own."""
        file = folder / "values.json"
        file.write_text(json.dumps(values))
        name = f"NAMESPACE={self.namespace.name}"
        run("make", f"release-{location}", f"TAG={tag}", f"VALUES={file}", name)

    def serving(self, location: str) -> Mapping[str, Any]:
        """The pods of a location's code server, by name, with when each was started."""
        pods = self.namespace.get("pod", f"component=user-deployments,deployment={location}")
        return {
            pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["state"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
        }

    def deployed_revision(self, release: str) -> str:
        """The number of a release's revision that is deployed; refused ones are failed."""
        where = ("--namespace", self.namespace.name, "--output", "json")
        history = json.loads(run("helm", "history", release, *where))
        found = [entry["revision"] for entry in history if entry["status"] == "deployed"]
        return str(found[-1])
