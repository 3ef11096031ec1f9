"""What a DAG file may say: the one schema of YAML, JSON, Python and the Dagster component."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tidemill_core.config import Config
from tidemill_core.dag.cron import check_crons, check_timezone
from tidemill_core.dag.names import (
    AssetKeyText,
    Group,
    KindName,
    Owner,
    Pool,
    Tags,
    check_job,
    check_partition_keys,
    check_partition_time,
)

Scalar: TypeAlias = str | int | float | bool
JsonValue: TypeAlias = Any  # whatever YAML and JSON can hold; the callable or component checks it
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
ExecutorName: TypeAlias = Literal["in_process", "threads", "multiprocess", "celery", "k8s"]
TriggerRule: TypeAlias = Literal[
    "all_success", "all_done", "one_failed", "one_success", "none_failed", "none_failed_min_one_success", "always"
]
Overlap: TypeAlias = Literal["wait", "skip", "refuse", "allow", "cancel_older"]
Kind: TypeAlias = Literal["asset", "op"]
OutputList = Annotated[str, Field(pattern=r"^\$\{\s*outputs\.[A-Za-z_]\w*\.[A-Za-z_]\w*\s*\}$")]
RetryCount = Annotated[int, Field(ge=0, le=100)]


class ParamSpec(Config):
    """One parameter of a DAG, settable when a run starts."""

    type: Literal["str", "int", "float", "bool", "date", "list"] = "str"
    """Type of its values; a value of another type is refused before anything runs."""
    default: Scalar | list[Scalar] | None = None
    """Value of a run that gives none; without a default the parameter must be given."""
    choices: tuple[Scalar, ...] = ()
    """The only values allowed; empty means any."""
    description: str = ""
    """What it is for."""


class RetrySpec(Config):
    """How often, when and for which errors a task is tried again."""

    count: int = Field(default=3, ge=0, le=100)
    """Retries after the first try."""
    delay_s: float = Field(default=1.0, ge=0)
    """Seconds before the first retry."""
    backoff: Literal["constant", "linear", "exponential"] = "exponential"
    """How the delay grows with each retry."""
    jitter: Literal["none", "full", "plus_minus"] = "full"
    """How chance spreads the delay, so that many tasks do not return at once."""
    on: tuple[str | int, ...] = ("any",)
    """Which errors: `any`, `transient`, `timeout`, an exit code of a command, or the name of an
    exception class (`ConnectionError`, `package.module:Error`). A PermanentError is never retried."""


class ScheduleSpec(Config):
    """When a DAG runs by itself."""

    cron: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """Five fields (minute hour day month weekday) or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`;
    a list of such lines starts a run at each time that any of them names."""
    timezone: str = "UTC"
    """IANA name, such as `America/New_York`."""
    enabled: bool = False
    """Start the schedule when the code location is loaded for the first time."""
    catch_up: bool | None = None
    """After a time without daemon: `true` starts every run that was missed since the schedule's last
    run (the newest hundred), `false` only the newest; unset does as Dagster does, which starts the
    newest five of a partitioned DAG and the newest one of others."""

    _cron = field_validator("cron")(check_crons)
    _timezone = field_validator("timezone")(check_timezone)


class TimePartitions(Config):
    """One partition per hour, day, week or month."""

    type: Literal["hourly", "daily", "weekly", "monthly"]
    """Length of a partition."""
    start: str
    """First partition, `2013-01-01` (`2013-01-01-00:00` for hourly)."""
    end: str | None = None
    """First partition that is not included any more; unset means now."""
    timezone: str = "UTC"
    """IANA name of the time zone in which days begin."""

    _timezone = field_validator("timezone")(check_timezone)

    @field_validator("start", "end")
    @classmethod
    def _times(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "type" in info.data:
            moment = check_partition_time(value, info.data["type"])
            start = info.data.get("start") if info.field_name == "end" else None
            if start is not None and moment <= check_partition_time(start, info.data["type"]):
                raise ValueError(f"the end {value!r} must be after the start {start!r}")
        return value


class StaticPartitions(Config):
    """A fixed list of partitions."""

    type: Literal["static"]
    """Marks a fixed list."""
    keys: tuple[str, ...] = Field(min_length=1)
    """The partition keys, in order."""

    _keys = field_validator("keys")(check_partition_keys)


Partitions: TypeAlias = Annotated[TimePartitions | StaticPartitions, Field(discriminator="type")]


class LogHook(Config):
    """Write a line to the log."""

    type: Literal["log"]
    """Marks a log line."""
    message: str = "${run.dag} ${run.status}"
    """The line; `${run.dag}`, `${run.id}`, `${run.status}` and `${run.task}` are filled in."""


class WebhookHook(Config):
    """POST a JSON object (dag, run_id, status, task) to a URL."""

    type: Literal["webhook"]
    """Marks a webhook."""
    url: str = Field(pattern=r"^https?://")
    """Where to post; keep secrets in `${ENV}` variables."""
    headers: dict[str, str] = Field(default={})
    """Extra headers."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds before giving up; a hook that fails never fails the run."""


class CommandHook(Config):
    """Run a command with DAG, run and status in its environment."""

    type: Literal["command"]
    """Marks a command."""
    run: str | tuple[str, ...]
    """A shell line, or a list of arguments."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds before it is killed."""


Hook: TypeAlias = Annotated[LogHook | WebhookHook | CommandHook, Field(discriminator="type")]


class Hooks(Config):
    """What to do when a run, or a task, has ended."""

    on_success: tuple[Hook, ...] = ()
    """After success."""
    on_failure: tuple[Hook, ...] = ()
    """After a failure (all retries used)."""


class TaskDefaults(Config):
    """Values for every task that does not say otherwise."""

    retry: RetrySpec | RetryCount | None = None
    """Retry rule, or just the number of retries."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds a task may take."""
    pool: Pool | None = None
    """Concurrency pool."""
    tags: Tags = Field(default={})
    """Tags added to each task."""
    env: dict[str, str] = Field(default={})
    """Environment variables added for commands."""
    cwd: str | None = None
    """Working directory of commands, relative to the file."""
    resources: tuple[str, ...] = ()
    """Resource keys passed to callables that take them."""


class TaskSpec(Config):
    """One step of a DAG: exactly one of `run`, `call`, `use` or `dag`."""

    name: Identifier
    """Name, unique in the DAG."""
    description: str = ""
    """What it does, shown in the UI."""
    run: str | tuple[str, ...] | None = None
    """A command: a shell line, or a list of arguments. Exit code 75 means: temporary, try again."""
    call: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """A Python callable, `package.module:function`."""
    use: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    """An installed component type, such as `tidemill_loader.LoadComponent`."""
    dag: str | None = Field(default=None, pattern=r"^(?:[^:]+:)?[A-Za-z_]\w*$")
    """Another DAG, run to its end as a run of its own: a name (of the same file or folder) or `file.yaml:name`."""
    params: dict[Identifier, JsonValue] = Field(default={})
    """Parameters of the DAG named by `dag`."""
    with_: dict[str, JsonValue] = Field(default={}, alias="with")
    """Attributes of the component named by `use`."""
    arguments: dict[str, JsonValue] = Field(default={})
    """Keyword arguments of the callable."""
    resources: tuple[str, ...] | None = None
    """Keys of the resources the callable takes as parameters of the same name."""
    env: dict[str, str] = Field(default={})
    """Environment variables of the command, added to the run's own."""
    cwd: str | None = None
    """Working directory of the command, relative to the file."""
    pipes: bool = False
    """The command reports logs and metadata through dagster-pipes."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds the task may take; then it fails."""
    needs: tuple[str, ...] = ()
    """Tasks that must be done first."""
    deps: tuple[AssetKeyText, ...] = ()
    """Asset keys from elsewhere that it reads (`raw/weather` or a list)."""
    retry: RetrySpec | RetryCount | None = None
    """Retry rule, or just the number of retries."""
    pool: Pool | None = None
    """Concurrency pool whose slots it takes."""
    tags: Tags = Field(default={})
    """Tags of the step; `dagster/priority` orders ready tasks."""
    when: str | None = None
    """Condition, such as `params.full and outputs.extract.rows > 0` or `tasks.load.state == 'failed'`;
    if false the task is skipped, and what needs it by `all_success`, too."""
    trigger: TriggerRule = "all_success"
    """When to start, given how the needed tasks ended; anything but all_success needs the `threads` or
    `in_process` executor. `none_failed` joins branches of which some were skipped."""
    matrix: dict[Identifier, list[Scalar] | OutputList] = Field(default={})
    """Fan out: one copy per combination, `${matrix.name}` in its texts. Instead of a list, the output of an
    earlier task, `${outputs.task.name}`: then the copies are made when that task is done."""
    max_copies: int = Field(default=1000, gt=0, le=10_000)
    """Copies that a list of an earlier task may bring; a longer one fails the task."""
    max_parallel: int | None = Field(default=None, gt=0)
    """Copies over an earlier task's output that run at once."""
    outputs: tuple[Identifier, ...] = ()
    """Names of values it returns, for `${outputs.task.name}` in later tasks."""
    kind: Kind | None = None
    """`asset` (the default) or `op`, a side effect without data."""
    asset_key: AssetKeyText | None = None
    """Key of the asset it makes, `raw/weather` or a list; unset means `[dag, task]`."""
    group: Group | None = None
    """Asset group; unset means the DAG's name."""
    kinds: tuple[KindName, ...] = Field(default=(), max_length=3)
    """Technologies shown on the asset, such as `python` or `postgres`."""
    owners: tuple[Owner, ...] = ()
    """Owners of the asset: e-mail addresses or `team:name`."""
    executor: Literal["multiprocess"] | None = None
    """`multiprocess`: this callable runs in a process of its own (work that needs CPU)."""
    hooks: Hooks = Hooks()
    """What to do when this task has ended."""

    @property
    def work(self) -> tuple[Literal["run", "call", "use", "dag"], str]:
        """What it does, for people: kind and text."""
        if self.run is not None:
            return "run", self.run if isinstance(self.run, str) else " ".join(map(str, self.run))
        if self.dag is not None:
            return "dag", self.dag
        return ("use", self.use) if self.use else ("call", self.call or "")


class TagLimit(Config):
    """How many steps with a tag may run at once."""

    key: str
    """The tag."""
    value: str | None = None
    """Only steps with this value of it; unset means all steps that carry the tag together."""
    limit: int = Field(gt=0)
    """How many."""


class Fragment(Config):
    """Tasks and parameters that several DAGs include."""

    params: dict[Identifier, ParamSpec] = Field(default={})
    """Parameters added to the including DAG."""
    tasks: tuple[TaskSpec, ...] = ()
    """Tasks put before those of the including DAG."""


class DagSpec(Config):
    """A DAG: tasks, their order, and how they run."""

    name: Annotated[Identifier, AfterValidator(check_job)]
    """Name of the DAG and of its Dagster job."""
    description: str = ""
    """What it is for."""
    kind: Kind = "asset"
    """`asset`: each task makes an asset; `op`: a graph of side effects."""
    include: tuple[str, ...] = ()
    """Files of tasks and parameters to put in, relative to this file."""
    params: dict[Identifier, ParamSpec] = Field(default={})
    """Parameters of a run."""
    defaults: TaskDefaults = TaskDefaults()
    """Values for tasks that do not say otherwise."""
    tasks: tuple[TaskSpec, ...] = ()
    """The tasks, in any order."""
    schedule: ScheduleSpec | None = None
    """When it runs by itself."""
    sensors: tuple[str, ...] = ()
    """Sensors to load with it, `package.module:sensor`."""
    partitions: Partitions | None = None
    """Partitions of its assets."""
    tags: Tags = Field(default={})
    """Tags of every run."""
    hooks: Hooks = Hooks()
    """What to do when a run has ended."""
    executor: ExecutorName | None = None
    """How tasks run; unset means the code location's setting."""
    overlap: Overlap = "wait"
    """What a run does while another one of this DAG goes on: `wait` for it, `skip` (end without
    doing anything), `refuse` (exit code 75), `allow` (both run), or `cancel_older`."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds a run may take, counted from its first task; then what runs is stopped and the run fails."""
    max_concurrent: int | None = Field(default=None, gt=0, le=1000)
    """Tasks that may run at the same time."""
    tag_limits: tuple[TagLimit, ...] = ()
    """Limits for tasks that carry a tag, within a run."""
