"""Resources whose fields come from variables, all of which are checked before one is made."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from forge_platform.environment import VARIABLES, Variable, require


@dataclass(frozen=True)
class FromEnvironment:
    """A resource whose fields are read from variables when a run or a tick begins.

    Dagster's own resolution of ``EnvVar`` fails before a resource is made, with one stack trace
    for every variable that is missing, and it does not know malformed ones. The configuration
    has the same form, so that the UI shows the variables of a resource all the same.

    Attributes:
        kind: the resource.
        variables: its fields that come from variables.
        settings: its other fields.
    """

    kind: type[dg.ConfigurableResource[Any]]
    variables: Mapping[str, Variable]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def definition(self, required: Iterable[Variable]) -> dg.ResourceDefinition:
        """The resource as Dagster takes it.

        Args:
            required: what is checked before it is made, so that one failure names everything.
        """
        described = [VARIABLES.get(variable.name, variable) for variable in required]

        def make(context: dg.InitResourceContext) -> dg.ConfigurableResource[Any]:
            require(described)
            read = {name: os.environ[source["env"]] for name, source in _config(context).items()}
            return self.kind(**read, **self.settings)

        return dg.ResourceDefinition(
            make,
            config_schema={
                name: dg.Field({"env": str}, default_value={"env": variable.name})
                for name, variable in self.variables.items()
            },
            description=self.kind.__doc__,
        )


def _config(context: dg.InitResourceContext) -> Mapping[str, Mapping[str, str]]:
    config: Mapping[str, Mapping[str, str]] = context.resource_config
    return config
