# One task runner: `uv run just <recipe>`.
set positional-arguments

# List the recipes.
default:
    @just --list

# Environment with compiled bytecode, and the git hooks.
setup:
    uv sync --compile-bytecode && uv run pre-commit install

# Format every file.
fmt:
    uv run ruff check --fix . && uv run ruff format .

# Format, lint, types, import contracts, declared dependencies.
check:
    uv run ruff format --check . && uv run ruff check . && uv run mypy && uv run lint-imports
    for part in packages/*/ deploy/; do (cd "$part" && uv run deptry src) || exit 1; done

# Every test.
test *args:
    uv run pytest -n 2 --dist loadfile "$@"

# One package's tests, alone in its own environment (finds undeclared dependencies).
test-one package *args:
    uv run --isolated --exact --all-extras --package "tidemill-$(echo {{package}} | tr _ -)" --with pytest --with pytest-timeout --with pytest-xdist --with hypothesis --with confluent-kafka pytest packages/{{package}} "${@:2}"

# Core's tests of executors and DAG files on another Dagster: lowest, newest, or a version.
test-dagster version *args:
    uv run python tests/with_dagster.py "$@"

# Every benchmark, full size; results go to benchmarks/results/.
bench *args:
    uv run python -m benchmarks "$@"

# Assemble the changelog's fragments into a version; `just changelog check main` requires one.
changelog *args:
    uv run python tests/changelog.py "$@"

# Generated reference pages and the DAG schema.
docs:
    uv run python docs/generate.py

# Is the deployment real? Builds and starts every image, validates every manifest (as root; minutes).
deploy-check *args:
    deploy/check "$@"

# Wheels and source distributions of every package.
build:
    uv build --all-packages

# Change one pure module in one place at a time; its unit tests should notice (tests/mutants.toml).
mutate module:
    uv run python tests/mutate.py {{module}}
