"""The documents that the demo sends to Dagster's GraphQL API."""

from __future__ import annotations

LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name
        loadStatus
        locationOrLoadError { __typename ... on PythonError { message } }
      }
    }
  }
}
"""

ASSETS = """
{
  assetNodes {
    assetKey { path }
    groupName
    repository { location { name } }
    isMaterializable
    jobNames
    opNames
    automationCondition { __typename }
    partitionStats { numPartitions numMaterialized }
    assetMaterializations(limit: 1) { timestamp }
  }
}
"""

CHECKS = """
{
  assetNodes {
    assetKey { path }
    assetChecksOrError {
      ... on AssetChecks {
        checks {
          name
          executionForLatestMaterialization {
            status
            runId
            evaluation { severity description }
          }
        }
      }
    }
  }
}
"""

RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs {
      results {
        runId
        status
        jobName
        creationTime
        startTime
        endTime
        repositoryOrigin { repositoryLocationName }
        assetSelection { path }
      }
    }
  }
}
"""

RUN_DETAILS = """
query RunDetails($id: ID!, $materializations: Boolean!) {
  runOrError(runId: $id) {
    ... on Run {
      stepStats { stepKey status startTime endTime }
      assetMaterializations @include(if: $materializations) {
        stepKey
        assetKey { path }
        metadataEntries {
          label
          ... on IntMetadataEntry { intRepr }
          ... on FloatMetadataEntry { floatValue }
        }
      }
    }
  }
}
"""

RUN_ERRORS = """
query RunErrors($id: ID!, $cursor: String, $limit: Int) {
  logsForRun(runId: $id, afterCursor: $cursor, limit: $limit) {
    ... on EventConnection {
      cursor
      hasMore
      events {
        ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
        ... on ExecutionStepUpForRetryEvent { stepKey error { message causes { message } } }
        ... on RunFailureEvent { error { message causes { message } } }
      }
    }
  }
}
"""

AUTOMATION = """
query Automation($selector: RepositorySelector!) {
  sensorsOrError(repositorySelector: $selector) {
    ... on Sensors {
      results {
        sensorType
        sensorState {
          status
          ticks(limit: 1) { timestamp endTimestamp error { message } }
        }
      }
    }
  }
}
"""

BACKFILLS = """
{
  partitionBackfillsOrError(status: REQUESTED) {
    ... on PartitionBackfills { results { runs { status } } }
  }
}
"""

LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector}) {
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""

REPEAT = """
mutation Repeat($id: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS}) {
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""

CANCEL = """
mutation Cancel($ids: [String!]!) {
  terminateRuns(runIds: $ids, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename }
}
"""
