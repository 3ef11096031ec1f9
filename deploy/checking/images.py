"""Build every image on a base made on the spot, start each as two users with a read-only root, run the job in one."""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from steps import DEPLOY, ROOT, Failed, holds, need, run, wait

SUITE = "bookworm"
BASE = f"localhost/tidemill-base:{SUITE}"
UIDS = (10001, 23456)
"""The image's own user, and one that it has never heard of (with group 0)."""
LIMIT_MB = {"dagster": 640, "ingest": 400, "stream": 400, "sync": 400}
"""What an image may weigh, base included, so that none grows unseen; docs/how-to/deploy.md says what each weighs."""
PROGRAMS = {"podman": "podman", "buildah": "buildah", "runc": "runc", "debootstrap": "debootstrap"}
STORE = Path(os.environ.get("TMPDIR", "/var/tmp"), "tidemill-check")
STORAGE = ["--root", f"{STORE}/images", "--runroot", f"{STORE}/run", "--storage-driver", "overlay"]
CERTIFICATES = [Path("/etc/ssl/certs"), Path("/usr/local/share/ca-certificates")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How the check starts an image."""

    image: str
    environ: dict[str, str]
    configuration: str | None = None
    command: Sequence[str] = field(default=())
    check: Sequence[str] = field(default=())
    """Health check in place of the image's own, for another role of it."""


def check() -> None:
    """Build, weigh, refuse, start, and run the job."""
    if os.geteuid() != 0:
        raise Failed("deploy/check images must run as root: debootstrap and overlay mounts need it")
    need(PROGRAMS)
    print("images", flush=True)
    make_base()
    for image in LIMIT_MB:
        build(image)
    refuses_bad_input()
    with servers() as environ:
        run_job(environ)
        for service in services(environ):
            for uid in UIDS:
                becomes_healthy(service, uid)


def make_base() -> None:
    """Make a Debian with Python and nothing else, as the slim images of the registries are; once per machine."""
    if BASE in run(["podman", *STORAGE, "images", "--format", "{{.Repository}}:{{.Tag}}"]):
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder, "root")
        packages = "python3,python3-venv,ca-certificates"
        run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, root])
        for waste in (
            "var/cache/apt/*",
            "var/lib/apt/lists/*",
            "usr/share/doc/*",
            "usr/share/man/*",
            "usr/share/locale/*",
        ):
            for found in root.glob(waste):
                shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
        (root / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
        archive = Path(folder, "base.tar")
        run(["tar", "-C", root, "-cf", archive, "."])
        run(["podman", *STORAGE, "import", archive, BASE])
    holds(f"base {BASE} made by debootstrap")


def build(image: str, *, extras: str = "") -> None:
    """Build a target of the Dockerfile and weigh it.

    Raises:
        Failed: It cannot be built, or it weighs more than it may.
    """
    mounts = [word for each in CERTIFICATES if each.is_dir() for word in ("-v", f"{each}:{each}:ro")]
    target = ["--target", image, "-t", f"localhost/tidemill-{image}:check"]
    arguments = ["--build-arg", f"BASE={BASE}", "--build-arg", f"EXTRAS={extras}"]
    isolation = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--layers"]
    dockerfile = ["-f", DEPLOY / "images" / "Dockerfile"]
    run(["buildah", *STORAGE, "bud", *isolation, *mounts, *arguments, *dockerfile, *target, ROOT])
    weight = int(run(["podman", *STORAGE, "image", "inspect", "--format", "{{.Size}}", target[-1]]).split()[-1]) / 1e6
    if weight > LIMIT_MB[image]:
        raise Failed(f"the image {image} weighs {weight:.0f} MB; at most {LIMIT_MB[image]}")
    holds(f"{image} built: {weight:.0f} MB")


def refuses_bad_input() -> None:
    """Start images with something missing or wrong; each must end with 3 and one line that names it."""
    whole = {"TIDEMILL_POSTGRES_URL": "postgresql://h/d", "TIDEMILL_KAFKA_BOOTSTRAP": "h:9092"}
    cases = [
        ("stream", {}, "TIDEMILL_POSTGRES_URL"),
        ("stream", whole, "/etc/tidemill/pipelines.yaml"),
        ("stream", {**whole, "TIDEMILL_KAFKA_BOOTSTRAP_": "x"}, "TIDEMILL_KAFKA_BOOTSTRAP_"),
        ("ingest", {"TIDEMILL_INGEST_STORE_FILE": "/run/secrets/none"}, "/run/secrets/none"),
        ("sync", {"TIDEMILL_SYNC_TOKEN": ""}, "TIDEMILL_SYNC_TOKEN"),
        ("dagster", whole, "TIDEMILL_DAGSTER_POSTGRES_URL"),
    ]
    for image, environ, names in cases:
        said = run(
            [
                "podman",
                *STORAGE,
                "--runtime",
                "runc",
                "run",
                "--rm",
                *confined(UIDS[0]),
                *settings(environ),
                f"localhost/tidemill-{image}:check",
            ],
            expect=3,
        )
        lines = said.strip().splitlines()
        if len(lines) != 1 or names not in lines[0]:
            raise Failed(f"{image} with {environ} should say one line that names {names}, said:\n{said}")
    holds(f"{len(cases)} kinds of bad input end with exit code 3 and one line that names them")


def confined(uid: int) -> list[str]:
    """Options of every container here: not root, a read-only root, nothing gained, the machine's own network."""
    limits = ["--ulimit", "nofile=8192:8192", "--ulimit", "nproc=8192:8192"]
    safe = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--no-healthcheck"]
    return ["--network", "host", *safe, "--tmpfs", "/tmp", "--user", f"{uid}:0", *limits]


def settings(environ: dict[str, str]) -> list[str]:
    """Options that give these variables to a container."""
    return [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start PostgreSQL, Apache Kafka and an S3 server, in a home of their own; yields the settings for them."""
    with tempfile.TemporaryDirectory(prefix="tidemill-check-", dir="/var/tmp") as home:
        own = {"TIDEMILL_HOME": home}
        try:
            run(["tidemill", "services", "up", "postgres", "kafka", "s3mock"], env=own)
            told = run(["tidemill", "services", "status", "--env"], env=own)
            words = [word for word in shlex.split(told, comments=True) if word.startswith("TIDEMILL_") and "=" in word]
            environ = dict(word.split("=", 1) for word in words)
            environ.setdefault("TIDEMILL_LAKE_URL", "s3://lake")
            environ.setdefault("TIDEMILL_MIRROR_URL", "s3://mirror")
            environ["TIDEMILL_DAGSTER_POSTGRES_URL"] = environ["TIDEMILL_POSTGRES_URL"]
            holds("PostgreSQL, Apache Kafka and S3Mock answer")
            yield environ
        finally:
            run(["tidemill", "services", "down"], env=own)


def run_job(environ: dict[str, str]) -> None:
    """Execute the main job in the image `dagster`, then compare every table with the source files from here."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as volume:
        os.chown(volume, UIDS[1], 0)
        image = ["-v", f"{volume}:/var/lib/tidemill", "localhost/tidemill-dagster:check"]
        start = ["podman", *STORAGE, "--runtime", "runc", "run", "--rm", *confined(UIDS[1]), *settings(environ), *image]
        said = run([*start, "python", "-m", "tidemill_deploy.pools"], timeout_s=120)
        if "kafka: 1" not in said:
            raise Failed(f"the pools were not set:\n{said}")
        run(
            [*start, "dagster", "job", "execute", "-m", "tidemill_deploy.definitions", "-j", "nyc_flights"],
            timeout_s=900,
        )
    compare = (
        "import sys, psycopg; from tidemill_deploy.checks import compare_all, EXPECTATIONS;"
        "c = psycopg.connect(sys.argv[1], autocommit=True);"
        "d = compare_all(lambda sql: c.execute(sql).fetchone()[0]);"
        "print(len(EXPECTATIONS)); sys.exit('; '.join(map(str, d)) if d else 0)"
    )
    counted = run(["python", "-c", compare, environ["TIDEMILL_POSTGRES_URL"]]).strip()
    holds(f"dagster job execute in the image, on real servers: {counted} facts of its tables equal the source files")


def services(environ: dict[str, str]) -> list[Service]:
    """Every role that a deployment has."""
    grpc = ["/opt/tidemill/bin/python", "/opt/image/healthcheck.py"]
    module = ["-m", "tidemill_deploy.definitions"]
    web = ["dagster-webserver", "-h", "127.0.0.1", "-p", "13000", *module]
    store = {"TIDEMILL_INGEST_STORE": environ["TIDEMILL_POSTGRES_URL"]}
    return [
        Service(image="dagster", environ=environ),
        Service(image="dagster", environ=environ, command=web, check=[*grpc, "http://127.0.0.1:13000/server_info"]),
        Service(
            image="dagster",
            environ=environ,
            command=["dagster-daemon", "run", *module],
            check=["dagster-daemon", "liveness-check"],
        ),
        Service(
            image="dagster",
            environ=environ,
            command=["tidemill", "metrics", "serve"],
            check=[*grpc, "http://127.0.0.1:9091/livez"],
        ),
        Service(image="ingest", environ=store, configuration="source.yaml"),
        Service(image="stream", environ=environ, configuration="pipelines.yaml"),
        Service(image="sync", environ={**environ, "TIDEMILL_SYNC_TOKEN": "of-the-check"}, configuration="sync.yaml"),
    ]


def becomes_healthy(service: Service, uid: int) -> None:
    """Start a container, wait for its health check, stop it by SIGTERM.

    Raises:
        Failed: It ends, is never healthy, or does not stop within its time; holds its log.
    """
    name, image = f"tidemill-check-{os.getpid()}", f"localhost/tidemill-{service.image}:check"
    role = service.command[0] if service.command else service.image
    with tempfile.TemporaryDirectory(dir="/var/tmp") as volume:
        os.chown(volume, uid, 0)
        mounts = ["-v", f"{volume}:/var/lib/tidemill"]
        if service.configuration:
            mounts += ["-v", f"{DEPLOY / 'config' / service.configuration}:/etc/tidemill/{service.configuration}:ro"]
        options = [*confined(uid), *settings(service.environ), *mounts]
        podman = ["podman", *STORAGE, "--runtime", "runc"]
        run([*podman, "run", "-d", "--name", name, *options, image, *service.command])
        try:
            asked = list(service.check) or health_check(image)
            wait(f"{role} as uid {uid}", lambda: _asked(podman, name, asked), within_s=120)
            run([*podman, "stop", "-t", "60", name])
            code = run([*podman, "inspect", "--format", "{{.State.ExitCode}}", name]).split()[-1]
            if code in {"137", "139"}:
                raise Failed(f"{role} did not end by SIGTERM within 60 s (exit code {code})")
        except Failed as error:
            raise Failed(f"{error}\n{run([*podman, 'logs', '--tail', '30', name])}") from error
        finally:
            run([*podman, "rm", "-f", "-t", "2", name])
    holds(f"{role} as uid {uid}, read-only root: healthy, ends by SIGTERM")


def health_check(image: str) -> list[str]:
    """The command of the image's own HEALTHCHECK."""
    told = json.loads(run(["podman", *STORAGE, "image", "inspect", image]))
    test: list[str] = told[0]["Healthcheck"]["Test"]
    return test[1:]


def _asked(podman: list[str], name: str, command: Sequence[str]) -> str | None:
    try:
        run([*podman, "exec", name, *command], timeout_s=30)
    except Failed as error:
        running = run([*podman, "inspect", "--format", "{{.State.Running}}", name])
        if "false" in running:
            raise Failed(f"the container ended: {error}") from error
        return str(error)[-500:]
    return None
