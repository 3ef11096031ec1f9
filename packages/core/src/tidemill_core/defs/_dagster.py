"""Every private name of Dagster that we use, in one place; found when first asked for.

Dagster may move or drop these in any release. Nothing else in this package imports from
``dagster._core`` or its siblings, so one list says what a new version must still have, and
a version that lacks a name is an error that says so.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster._core.definitions.dependency import (
        DynamicCollectDependencyDefinition as DynamicCollectDependencyDefinition,
    )
    from dagster._core.definitions.job_base import InMemoryJob as InMemoryJob
    from dagster._core.definitions.run_request import InstigatorType as InstigatorType
    from dagster._core.errors import DagsterExecutionInterruptedError as DagsterExecutionInterruptedError
    from dagster._core.errors import raise_execution_interrupts as raise_execution_interrupts
    from dagster._core.events import DagsterEvent as DagsterEvent
    from dagster._core.events import EngineEventData as EngineEventData
    from dagster._core.execution import context_creation_job as context_creation_job
    from dagster._core.execution.api import ExecuteRunWithPlanIterable as ExecuteRunWithPlanIterable
    from dagster._core.execution.api import create_execution_plan as create_execution_plan
    from dagster._core.execution.api import execute_run_iterator as execute_run_iterator
    from dagster._core.execution.compute_logs import create_compute_log_file_key as create_compute_log_file_key
    from dagster._core.execution.compute_logs import redirect_stream as redirect_stream
    from dagster._core.execution.compute_logs import redirect_to_file as redirect_to_file
    from dagster._core.execution.context.system import PlanExecutionContext as PlanExecutionContext
    from dagster._core.execution.context.system import PlanOrchestrationContext as PlanOrchestrationContext
    from dagster._core.execution.context.system import StepExecutionContext as StepExecutionContext
    from dagster._core.execution.context_creation_job import PlanExecutionContextManager as PlanExecutionContextManager
    from dagster._core.execution.plan.active import ActiveExecution as ActiveExecution
    from dagster._core.execution.plan.execute_plan import (
        dagster_event_sequence_for_step as dagster_event_sequence_for_step,
    )
    from dagster._core.execution.plan.instance_concurrency_context import (
        InstanceConcurrencyContext as InstanceConcurrencyContext,
    )
    from dagster._core.execution.plan.objects import ErrorSource as ErrorSource
    from dagster._core.execution.plan.objects import StepFailureData as StepFailureData
    from dagster._core.execution.plan.plan import ExecutionPlan as ExecutionPlan
    from dagster._core.execution.plan.state import KnownExecutionState as KnownExecutionState
    from dagster._core.execution.plan.step import ExecutionStep as ExecutionStep
    from dagster._core.execution.retries import RetryMode as RetryMode
    from dagster._core.execution.retries import get_retries_config as get_retries_config
    from dagster._core.execution.stats import RunStepKeyStatsSnapshot as RunStepKeyStatsSnapshot
    from dagster._core.execution.step_dependency_config import StepDependencyConfig as StepDependencyConfig
    from dagster._core.execution.step_dependency_config import (
        get_step_dependency_config_field as get_step_dependency_config_field,
    )
    from dagster._core.execution.tags import get_tag_concurrency_limits_config as get_tag_concurrency_limits_config
    from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher import DefaultRunLauncher as DefaultRunLauncher
    from dagster._core.launcher import WorkerStatus as WorkerStatus
    from dagster._core.scheduler.instigation import InstigatorState as InstigatorState
    from dagster._core.scheduler.instigation import TickStatus as TickStatus
    from dagster._core.storage.compute_log_manager import CapturedLogContext as CapturedLogContext
    from dagster._core.storage.compute_log_manager import ComputeIOType as ComputeIOType
    from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES as IN_PROGRESS_RUN_STATUSES
    from dagster._core.storage.dagster_run import RunsFilter as RunsFilter
    from dagster._core.storage.event_log import SqliteEventLogStorage as SqliteEventLogStorage
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager as LocalComputeLogManager
    from dagster._core.storage.tags import PARENT_RUN_ID_TAG as PARENT_RUN_ID_TAG
    from dagster._grpc.types import ExecuteStepArgs as ExecuteStepArgs
    from dagster._serdes import serialize_value as serialize_value
    from dagster._serdes import unpack_value as unpack_value
    from dagster._utils.error import serializable_error_info_from_exc_info as serializable_error_info_from_exc_info
    from dagster._utils.schedules import is_valid_cron_schedule as is_valid_cron_schedule
    from dagster._utils.schedules import schedule_execution_time_iterator as schedule_execution_time_iterator
    from dagster_shared.error import SerializableErrorInfo as SerializableErrorInfo
    from dagster_shared.yaml_utils.source_position import SourcePositionTree as SourcePositionTree

PLACES: dict[str, str] = {
    "ActiveExecution": "dagster._core.execution.plan.active",
    "CapturedLogContext": "dagster._core.storage.compute_log_manager",
    "CheckRunHealthResult": "dagster._core.launcher",
    "ComputeIOType": "dagster._core.storage.compute_log_manager",
    "DagsterEvent": "dagster._core.events",
    "DagsterExecutionInterruptedError": "dagster._core.errors",
    "DefaultRunLauncher": "dagster._core.launcher",
    "DynamicCollectDependencyDefinition": "dagster._core.definitions.dependency",
    "EngineEventData": "dagster._core.events",
    "ErrorSource": "dagster._core.execution.plan.objects",
    "ExecuteRunWithPlanIterable": "dagster._core.execution.api",
    "ExecutionPlan": "dagster._core.execution.plan.plan",
    "ExecutionStep": "dagster._core.execution.plan.step",
    "IN_PROGRESS_RUN_STATUSES": "dagster._core.storage.dagster_run",
    "InMemoryJob": "dagster._core.definitions.job_base",
    "InstanceConcurrencyContext": "dagster._core.execution.plan.instance_concurrency_context",
    "InstigatorState": "dagster._core.scheduler.instigation",
    "InstigatorType": "dagster._core.definitions.run_request",
    "KnownExecutionState": "dagster._core.execution.plan.state",
    "LocalComputeLogManager": "dagster._core.storage.local_compute_log_manager",
    "PARENT_RUN_ID_TAG": "dagster._core.storage.tags",
    "PlanExecutionContext": "dagster._core.execution.context.system",
    "PlanExecutionContextManager": "dagster._core.execution.context_creation_job",
    "PlanOrchestrationContext": "dagster._core.execution.context.system",
    "RetryMode": "dagster._core.execution.retries",
    "RunStepKeyStatsSnapshot": "dagster._core.execution.stats",
    "RunsFilter": "dagster._core.storage.dagster_run",
    "SerializableErrorInfo": "dagster_shared.error",
    "SourcePositionTree": "dagster_shared.yaml_utils.source_position",
    "SqliteEventLogStorage": "dagster._core.storage.event_log",
    "StepDependencyConfig": "dagster._core.execution.step_dependency_config",
    "StepExecutionContext": "dagster._core.execution.context.system",
    "StepFailureData": "dagster._core.execution.plan.objects",
    "TickStatus": "dagster._core.scheduler.instigation",
    "WorkerStatus": "dagster._core.launcher",
    "context_creation_job": "dagster._core.execution",
    "create_compute_log_file_key": "dagster._core.execution.compute_logs",
    "create_execution_plan": "dagster._core.execution.api",
    "dagster_event_sequence_for_step": "dagster._core.execution.plan.execute_plan",
    "execute_run_iterator": "dagster._core.execution.api",
    "get_retries_config": "dagster._core.execution.retries",
    "get_step_dependency_config_field": "dagster._core.execution.step_dependency_config",
    "get_tag_concurrency_limits_config": "dagster._core.execution.tags",
    "is_valid_cron_schedule": "dagster._utils.schedules",
    "raise_execution_interrupts": "dagster._core.errors",
    "redirect_stream": "dagster._core.execution.compute_logs",
    "redirect_to_file": "dagster._core.execution.compute_logs",
    "schedule_execution_time_iterator": "dagster._utils.schedules",
    "serializable_error_info_from_exc_info": "dagster._utils.error",
    "trigger_hook": "dagster._core.execution.plan.execute_plan",
    "ExecuteStepArgs": "dagster._grpc.types",
    "serialize_value": "dagster._serdes",
    "unpack_value": "dagster._serdes",
}
"""The module of each name."""
_RENAMED = {"trigger_hook": "_trigger_hook"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, theirs = PLACES[name], _RENAMED.get(name, name)
    try:
        module = import_module(place)
        value = getattr(module, theirs) if hasattr(module, theirs) else import_module(f"{place}.{theirs}")
    except ImportError as error:
        from importlib.metadata import version

        raise ImportError(
            f"Dagster {version('dagster')} has no {place}.{theirs}, which tidemill-core needs; "
            "install a version of Dagster that tidemill-core allows"
        ) from error
    globals()[name] = value
    return value


def console_loggers(log: Any) -> list[logging.Logger]:
    """The loggers that show a run's events, the console among them, behind its log manager."""
    handler = getattr(log, "_dagster_handler", None)
    return list(getattr(handler, "_loggers", ()))
