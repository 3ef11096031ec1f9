"""Every file of the deployment by its own tool; each tool must also refuse a file that was spoilt.

compose.yaml by Docker's compose loader, Kubernetes by kubeconform with the schemas of its version (KEDA's from its
models), Prometheus' configuration, rules and their tests by promtool, the boards' expressions by promtool, and the
services' configurations by our own commands.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from steps import DEPLOY, Failed, cache, holds, run

KUBERNETES = "1.37.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
SCHEMAS = f"kubernetes-validate=={KUBERNETES}"
KINDS = (
    "configmap-v1",
    "deployment-apps-v1",
    "horizontalpodautoscaler-autoscaling-v2",
    "job-batch-v1",
    "namespace-v1",
    "networkpolicy-networking-v1",
    "persistentvolumeclaim-v1",
    "poddisruptionbudget-policy-v1",
    "service-v1",
    "serviceaccount-v1",
)
KEDA = "cloudcoil-models-keda==2.16.1.0"


def check() -> None:
    """Check every file."""
    print("manifests", flush=True)
    compose()
    kubernetes()
    prometheus()
    configurations()


def compose() -> None:
    """compose.yaml is valid, refers to what is there, and pins every image."""
    tool = _go_build(DEPLOY / "checking" / "compose", "compose-check")
    file = DEPLOY / "compose.yaml"
    counted = run([tool, file]).strip()
    spoilt(file, "healthcheck:", "health_check:", lambda path: run([tool, path], expect=1))
    images = [each["image"] for each in yaml.safe_load(file.read_text())["services"].values()]
    if loose := [image for image in images if ":" not in image or image.endswith(":latest")]:
        raise Failed(f"compose.yaml pins no version of {', '.join(loose)}")
    holds(f"compose.yaml: {counted}, each of a pinned version")
    with tempfile.TemporaryDirectory() as folder:
        run([DEPLOY / "secrets.sh", folder])
        first = {path.name: path.read_text() for path in Path(folder).iterdir()}
        run([DEPLOY / "secrets.sh", folder])
        named = set(yaml.safe_load(file.read_text())["secrets"])
        if set(first) != named or first != {path.name: path.read_text() for path in Path(folder).iterdir()}:
            raise Failed(f"secrets.sh writes {sorted(first)}, compose.yaml names {sorted(named)}")
    holds("secrets.sh writes what compose.yaml names, and keeps what is there")


def kubernetes() -> None:
    """Every manifest is valid, strictly: a key that Kubernetes does not know is refused."""
    tool = _go_install(KUBECONFORM)
    schemas = _schemas()
    plain = f"{schemas}/v{KUBERNETES}-local-strict/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [tool, "-strict", "-summary", "-schema-location", plain]
    command += ["-schema-location", f"{schemas}/{{{{.ResourceKind}}}}-{{{{.ResourceAPIVersion}}}}.json"]
    files = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "dagster-values.yaml")
    said = run([*command, *files]).strip().splitlines()[-1]
    holds(f"Kubernetes {KUBERNETES}: {said}")
    for name, right, wrong in (
        ("stream.yaml", "readinessProbe:", "readynessProbe:"),
        ("stream-scaler.yaml", "minReplicaCount: 1", "minReplicaCount: one"),
        ("network.yaml", "podSelector:", "podSelectors:"),
    ):
        spoilt(DEPLOY / "kubernetes" / name, right, wrong, lambda path: run([*command, path], expect=1))
    listed = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    if missing := {f"kubernetes/{path.name}" for path in files} - set(listed["resources"]):
        raise Failed(f"kustomization.yaml leaves out {sorted(missing)}")
    generated = {path for each in listed["configMapGenerator"] for path in each["files"]}
    if absent := [path for path in sorted(generated) if not (DEPLOY / path).is_file()]:
        raise Failed(f"kustomization.yaml names {absent}, which is not there")
    holds("kustomization.yaml names every manifest and configuration")


def prometheus() -> None:
    """Configuration, rules, the rules' tests, and every expression of the boards."""
    tool = _promtool()
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder, "token")
        token.write_text("x")
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        configuration = Path(folder, "prometheus.yml")
        configuration.write_text(text.replace("/run/secrets/sync_token", str(token)))
        Path(folder, "rules.yml").write_text((DEPLOY / "prometheus" / "rules.yml").read_text())
        run([tool, "check", "config", configuration])
        spoilt(
            configuration,
            "scrape_interval",
            "scrape_intervall",
            lambda path: run([tool, "check", "config", path], expect=1),
        )
        expressions = [
            (f"{path.stem}:{panel['id']}", target["expr"])
            for path in sorted((DEPLOY / "grafana" / "boards").glob("*.json"))
            for panel in json.loads(path.read_text())["panels"]
            for target in panel["targets"]
        ]
        rules = [
            {
                "record": f"board:{number}",
                "expr": expr.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$__interval", "1m"),
            }
            for number, (_, expr) in enumerate(expressions)
        ]
        boards = Path(folder, "boards.yml")
        boards.write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": rules}]}))
        run([tool, "check", "rules", boards])
        spoilt(boards, "rate(", "rat(", lambda path: run([tool, "check", "rules", path], expect=1))
    run([tool, "check", "rules", DEPLOY / "prometheus" / "rules.yml"])
    run([tool, "test", "rules", "rules_test.yml"], cwd=DEPLOY / "prometheus")
    spoilt(
        DEPLOY / "prometheus" / "rules_test.yml",
        "rule_files: [rules.yml]",
        f"rule_files: [{DEPLOY / 'prometheus' / 'none.yml'}]",
        lambda path: run([tool, "test", "rules", path], expect=1),
    )
    run(["python", DEPLOY / "grafana" / "write.py", "--check"])
    holds(f"promtool: configuration, rules and their tests, {len(expressions)} expressions of the boards")


def configurations() -> None:
    """What compose.yaml and Kubernetes mount into the services, by the services' own commands."""
    config = DEPLOY / "config"
    run(["tidemill", "stream", "validate", config / "pipelines.yaml"])
    run(["tidemill", "ingest", "validate", config / "source.yaml"])
    spoilt(
        config / "pipelines.yaml",
        "where:",
        "wher:",
        lambda path: run(["tidemill", "stream", "validate", path], expect=3),
    )
    served = (
        "import sys; from tidemill_core.config import load; from tidemill_sync.config import ServeConfig;"
        "load(sys.argv[1], ServeConfig)"
    )
    run(["python", "-c", served, config / "sync.yaml"])
    spoilt(config / "sync.yaml", "port:", "ports:", lambda path: run(["python", "-c", served, path], expect=1))
    holds("the services' configurations")


def spoilt(file: Path, right: str, wrong: str, refused: Callable[[Path], object]) -> None:
    """Hand a copy with one fault to its tool, which must refuse it: else the tool proves nothing.

    Raises:
        Failed: The fault cannot be made, or the tool takes it.
    """
    text = file.read_text()
    if right not in text:
        raise Failed(f"{file.name} has no {right!r} to spoil; change the check")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        copy.write_text(text.replace(right, wrong, 1))
        refused(copy)


def _go_install(module: str) -> Path:
    name = module.partition("@")[0].rsplit("/", 1)[-1]
    folder = cache(module.replace("/", "_"))
    if not (folder / name).exists():
        run(["go", "install", module], env={"GOBIN": str(folder), "GOFLAGS": ""})
    return folder / name


def _go_build(folder: Path, name: str) -> Path:
    built = cache("built") / name
    run(["go", "build", "-o", built, "."], cwd=folder, env={"GOFLAGS": "-mod=readonly"})
    return built


def _schemas() -> Path:
    """The JSON schemas of Kubernetes, and KEDA's ScaledObject, from the packages that ship them."""
    folder = cache(f"schemas-{KUBERNETES}")
    keda = folder / "scaledobject-v1alpha1.json"
    if not keda.exists():
        script = (
            "import json, pathlib, kubernetes_validate as k; from cloudcoil.models.keda import v1alpha1 as m;"
            "print(json.dumps({'schemas': str(pathlib.Path(k.__file__).parent / 'kubernetes-json-schema'),"
            " 'keda': m.ScaledObject.model_json_schema(by_alias=True)}))"
        )
        run(["uv", "venv", "--quiet", "--clear", folder / "env"])
        python = folder / "env" / "bin" / "python"
        run(["uv", "pip", "install", "--quiet", "--python", python, SCHEMAS, KEDA])
        told = json.loads(run([python, "-c", script]).strip().splitlines()[-1])
        name = f"v{KUBERNETES}-local-strict"
        (folder / name).mkdir(exist_ok=True)
        shared = json.loads(Path(told["schemas"], name, "_definitions.json").read_text())["$defs"]
        for kind in KINDS:
            # A schema refers to definitions in a file beside it, which kubeconform does not read: put them inside.
            text = Path(told["schemas"], name, f"{kind}.json").read_text()
            whole = {**json.loads(text.replace("/api/_definitions.json#", "#")), "$defs": shared}
            (folder / name / f"{kind}.json").write_text(json.dumps(whole))
        keda.write_text(json.dumps(_strict(told["keda"])))
    return folder


def _strict(schema: Any) -> Any:
    """Refuse keys that a schema does not name."""
    if isinstance(schema, dict):
        made = {name: _strict(value) for name, value in schema.items()}
        if "properties" in made and made.get("type") == "object":
            made.setdefault("additionalProperties", False)
        return made
    return [_strict(each) for each in schema] if isinstance(schema, list) else schema


def _promtool() -> Path:
    """Debian's promtool, unpacked beside the check: no service is installed or started."""
    folder = cache("prometheus")
    tool = folder / "usr" / "bin" / "promtool"
    if not tool.exists():
        if os.geteuid() == 0:
            run(["apt-get", "update", "-qq"])
        run(["apt-get", "download", "-qq", "prometheus"], cwd=folder)
        (package,) = folder.glob("prometheus_*.deb")
        run(["dpkg", "-x", package, folder])
    return tool
