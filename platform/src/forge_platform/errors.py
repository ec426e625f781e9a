"""What can go wrong, as types: a permanent failure is not retried, a transient one is.

Every failure that the platform raises is one of the two. Permanent ones are Dagster
``Failure`` objects that forbid retries, so that an asset's ``RetryPolicy`` looks at the
type and no asset has to translate anything.
"""

from __future__ import annotations

import dagster as dg


class ForgeError(Exception):
    """Base of every failure that this library raises; its text names the thing and the remedy."""


class PermanentError(ForgeError, dg.Failure):
    """Trying again cannot help: configuration, schema or data must change first."""

    def __init__(self, message: str) -> None:
        dg.Failure.__init__(self, description=message, allow_retries=False)

    def __str__(self) -> str:
        """The message alone, as in any exception."""
        return self.description or ""


class TransientError(ForgeError):
    """Trying again can help: the other side was away, busy or slow."""


class ConfigurationError(PermanentError):
    """Variables or settings are missing or malformed; all of them are named at once."""


class ContractViolation(PermanentError):
    """A table is not what its contract promises to other code locations."""


class TableFileMissing(PermanentError):
    """A file that a table is made of is not where its metadata say."""


class SchemaMismatch(PermanentError):
    """The data's schema cannot be applied to the table; the text shows both."""


class SourceSchemaError(PermanentError):
    """A source table or column is missing, or its type is no longer the expected one."""


class AuthenticationFailed(PermanentError):
    """The other side knows us and refuses the credentials."""


class SourceUnavailable(TransientError):
    """A source or store cannot be reached, or answers that it is overloaded."""


class ApiResponseError(PermanentError):
    """An API answered something that is not its documented form."""


class CommitConflict(TransientError):
    """Other writers were first more often than the commit was retried."""


class StorageFull(TransientError):
    """No room is left where files are written; nothing was committed."""


RETRY_TRANSIENT = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""Retries what may pass by itself; permanent errors forbid retries by their type."""
