"""The deployment's files agree with the code and with each other; `deploy/check` proves what needs tools and images."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tidemill_core.defs.metrics.families import Families
from tidemill_core.telemetry import metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DECLARE = ("tidemill_ingest_api.metrics", "tidemill_stream.metrics", "tidemill_sync.metrics", "tidemill_loader.engine")
_NAME = re.compile(r"\b(?:dagster|tidemill)_\w+")
_SUFFIX = re.compile(r"_(total|bucket|count|sum)$")


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def offered() -> set[str]:
    for name in DECLARE:
        importlib.import_module(name)
    ours = {_SUFFIX.sub("", each) for each in metrics._declared}
    return ours | {family.name for family in Families().registry.collect()}


def used() -> dict[str, set[str]]:
    found = {}
    for path in sorted((DEPLOY / "grafana" / "boards").glob("*.json")):
        panels = json.loads(path.read_text())["panels"]
        found[path.name] = {
            name for panel in panels for each in panel["targets"] for name in _NAME.findall(each["expr"])
        }
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    found["rules.yml"] = {
        name for group in rules["groups"] for rule in group["rules"] for name in _NAME.findall(rule["expr"])
    }
    return found


@pytest.mark.parametrize("file", ["dagster.json", "ingest.json", "stream.json", "sync.json", "rules.yml"])
def test_every_name_in_a_board_or_rule_is_a_metric(file) -> None:
    names = used()[file]

    assert names
    assert {name for name in names if _SUFFIX.sub("", name) not in offered() and name not in offered()} == set()


def test_every_metric_follows_the_convention() -> None:
    packages = "core|ingest_api|stream|loader|sync|lineage"

    assert [name for name in offered() if not re.match(rf"(dagster|tidemill_({packages}))_[a-z]", name)] == []


def test_metrics_that_no_board_or_rule_uses_are_named_in_the_docs() -> None:
    shown = {_SUFFIX.sub("", name) for names in used().values() for name in names}
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    section = page.partition("## On no board")[2]
    named = {_SUFFIX.sub("", name) for name in _NAME.findall(section)}

    assert named == offered() - shown


def test_there_is_a_scrape_job_and_a_board_for_each_service() -> None:
    jobs = {
        each["job_name"]
        for each in yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    }

    assert jobs == {path.stem for path in (DEPLOY / "grafana/boards").glob("*.json")}
    assert jobs == set(re.findall(r"AS (dagster|ingest|stream|sync)\n", (DEPLOY / "images/Dockerfile").read_text()))


def test_the_charts_values_say_what_dagster_yaml_says() -> None:
    ours = yaml.safe_load((DEPLOY / "instance" / "dagster.yaml").read_text())
    chart = yaml.safe_load((DEPLOY / "kubernetes" / "dagster-values.yaml").read_text())
    daemon = chart["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]

    def snake(values):
        return {re.sub(r"([A-Z])", r"_\1", name).lower(): value for name, value in values.items()}

    assert queue["maxConcurrentRuns"] == ours["concurrency"]["runs"]["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == ours["concurrency"]["runs"]["tag_concurrency_limits"]
    assert snake(chart["concurrency"]["pools"]) == ours["concurrency"]["pools"]
    assert snake(daemon["runMonitoring"]) == {
        name.replace("poll_interval_seconds", "poll_interval_seconds"): value
        for name, value in ours["run_monitoring"].items()
    }
    assert snake(daemon["runRetries"]) == ours["run_retries"]
    for kind in ("schedule", "sensor"):
        days = dict(chart["retention"][kind]["purgeAfterDays"])
        assert days.pop("started") == -1
        assert days == ours["retention"][kind]["purge_after_days"]


def test_dagster_takes_every_value_of_dagster_yaml(tmp_path, monkeypatch) -> None:
    import dagster as dg

    config = yaml.safe_load((DEPLOY / "instance" / "dagster.yaml").read_text())
    config["storage"] = {"sqlite": {"base_dir": str(tmp_path / "storage")}}  # the real one needs a server: deploy/check
    for part in ("compute_logs", "local_artifact_storage"):
        config[part]["config"]["base_dir"] = str(tmp_path / part)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        from tidemill_deploy.pools import POOLS, set_limits

        changed, again = set_limits(instance), set_limits(instance)
        limits = {each.name: each.limit for each in instance.event_log_storage.get_pool_limits()}

        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.run_monitoring_enabled
        assert limits == dict(POOLS)
        assert len(changed) == len(POOLS)
        assert again == []


def test_a_pool_of_the_main_job_that_has_no_number_admits_one() -> None:
    from tidemill_deploy.definitions import defs
    from tidemill_deploy.pools import POOLS

    job = defs.resolve_job_def("nyc_flights")
    pools = {pool for node in job.all_node_defs for pool in node.pools}

    assert {pool for pool in pools if pool not in POOLS and not pool.startswith("api/")} == set()
    assert POOLS["kafka"] == 1


ENTRYPOINT = DEPLOY / "images" / "entrypoint.py"


def started(tmp_path, image, *command, **environ):
    """Run the entrypoint as a container would."""
    bare = {"PATH": os.environ["PATH"], "TIDEMILL_HOME": str(tmp_path), **environ}
    return subprocess.run([sys.executable, ENTRYPOINT, image, *command], env=bare, capture_output=True, text=True)


STREAM = {"TIDEMILL_POSTGRES_URL": "postgresql://h/d", "TIDEMILL_KAFKA_BOOTSTRAP": "h:1"}


@pytest.mark.parametrize(
    ("image", "environ", "names"),
    [
        ("nothing", {}, "'nothing'"),
        ("stream", {}, "TIDEMILL_POSTGRES_URL"),
        ("stream", {**STREAM, "TIDEMILL_POSTGRES_UR": "x"}, "TIDEMILL_POSTGRES_UR"),
        ("stream", {**STREAM, "TIDEMILL_EXECUTOR": "abacus"}, "TIDEMILL_EXECUTOR"),
        ("stream", {"TIDEMILL_POSTGRES_URL_FILE": "/none/url"}, "/none/url"),
        ("stream", {**STREAM, "TIDEMILL_POSTGRES_URL_FILE": "/none/url"}, "keep one"),
        ("stream", {**STREAM, "TIDEMILL_HOME": "/none/home"}, "/none/home"),
    ],
    ids=["image", "missing", "misspelt", "out of bounds", "no secret file", "both", "home"],
)
def test_bad_input_ends_the_container_with_one_line_that_names_it(tmp_path, image, environ, names) -> None:
    done = started(tmp_path, image, "true", **environ)

    assert (3, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert names in done.stderr


def test_a_missing_configuration_is_named_before_anything_starts(tmp_path) -> None:
    done = started(tmp_path, "stream", "echo", "/etc/tidemill/none.yaml", **STREAM)

    assert (3, "") == (done.returncode, done.stdout)
    assert "/etc/tidemill/none.yaml" in done.stderr


def test_a_secrets_file_reaches_the_command_as_its_variable(tmp_path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://h/d\n")
    given = {"TIDEMILL_POSTGRES_URL_FILE": str(secret), "TIDEMILL_KAFKA_BOOTSTRAP": "h:1"}

    done = started(tmp_path, "stream", "env", **given)

    assert done.returncode == 0
    assert "TIDEMILL_POSTGRES_URL=postgresql://h/d\n" in done.stdout
    assert "_URL_FILE" not in done.stdout


def test_trimming_never_changes_a_file_that_another_place_shares(tmp_path) -> None:
    trim = load(DEPLOY / "images" / "trim.py")
    shared, packages = tmp_path / "cache.so", tmp_path / "packages"
    original = Path(
        sys.modules["_struct"].__file__ if hasattr(sys.modules.get("_struct"), "__file__") else sys.executable
    )
    shared.write_bytes(original.read_bytes())
    (packages / "one").mkdir(parents=True)
    for name in ("a.so", "b.so"):
        (packages / "one" / name).hardlink_to(shared)
    (packages / "one" / "tests").mkdir()
    trim.LARGE = 1

    trim.trim(packages)

    assert shared.read_bytes() == original.read_bytes()
    assert not (packages / "one" / "tests").exists()
    assert (packages / "one" / "a.so").stat().st_ino == (packages / "one" / "b.so").stat().st_ino
    assert shared.stat().st_ino != (packages / "one" / "a.so").stat().st_ino


@pytest.mark.parametrize("arguments", [[], ["/none"]], ids=["none", "no environment"])
def test_trimming_what_is_no_environment_is_refused(arguments) -> None:
    done = subprocess.run([sys.executable, DEPLOY / "images" / "trim.py", *arguments], capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith("trim: ")


def test_the_check_refuses_a_part_that_it_does_not_have() -> None:
    done = subprocess.run([sys.executable, DEPLOY / "checking", "imags"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "'imags'; known: manifests, images" in done.stderr
