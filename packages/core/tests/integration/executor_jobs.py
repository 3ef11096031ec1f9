"""Jobs that the executor tests run; a module of its own, because worker processes import it."""

import time
from pathlib import Path

import dagster as dg
from tidemill_core.defs.executor.threads import executor_by_name


@dg.op
def first():
    return 1


@dg.op
def left(value):
    return value + 1


@dg.op
def right(value):
    return value + 2


@dg.op
def both(a, b):
    return a + b


@dg.op
def broken(_value):
    raise ValueError("no luck")


@dg.op
def after_broken(_value):
    return None


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.2))
def second_try(context):
    if context.retry_number == 0:
        raise ValueError("not yet")
    return 1


@dg.op(out={"yes": dg.Out(is_required=False), "no": dg.Out(is_required=False)})
def choose():
    yield dg.Output(1, "yes")


@dg.op
def on_yes(_value):
    return None


@dg.op
def on_no(_value):
    return None


@dg.op(out=dg.DynamicOut())
def fan_out():
    for name in ("a", "b"):
        yield dg.DynamicOutput(name, mapping_key=name)


@dg.op
def each(value):
    return value * 2


@dg.op
def collect(values):
    assert sorted(values) == ["aa", "bb"]


@dg.op(pool="narrow")
def narrow_one():
    time.sleep(0.05)


@dg.op(pool="narrow")
def narrow_two():
    time.sleep(0.05)


@dg.op(config_schema={"folder": str})
def wait_for_ever(context):
    Path(context.op_config["folder"], "started").touch()
    while True:
        time.sleep(0.05)


@dg.op(ins={"after": dg.In(dg.Nothing)})
def never_reached():
    return None


@dg.graph
def everything():
    value = first()
    both(left(value), right(value))
    after_broken(broken(value))
    second_try()
    yes, no = choose()
    on_yes(yes)
    on_no(no)
    collect(fan_out().map(each).collect())
    narrow_one()
    narrow_two()


@dg.graph
def endless():
    never_reached(wait_for_ever())


def make(graph: str, executor: str) -> dg.JobDefinition:
    """Build one of the jobs with one of the executors."""
    return globals()[graph].to_job(
        name=graph, executor_def=executor_by_name(executor, None if executor == "in_process" else 4)
    )
