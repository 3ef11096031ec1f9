"""What the repository promises about itself: sizes, versions, no trace of one machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_MODULE_LINES = 600
TRACES = re.compile(
    r"pypi\.org|pythonhosted|registry\.npmjs|repo1?\.maven|deb\.debian\.org|proxy\.golang|(?<![\w.])/(?:work|root)/\w"
)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_module_is_longer_than_the_limit() -> None:
    sources = [path for path in tracked("*.py") if "_generated" not in path.parts]

    long = {str(path): lines for path in sources if (lines := len(path.read_text().splitlines())) > MAX_MODULE_LINES}

    assert {} == long
    assert len(sources) > 50


def test_all_packages_have_one_version_and_pin_their_siblings_to_it() -> None:
    files = [ROOT / "deploy/pyproject.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))]
    projects = [tomllib.loads(path.read_text())["project"] for path in files]

    versions = {project["version"] for project in projects}
    siblings = [each for project in projects for each in project["dependencies"] if each.startswith("tidemill-")]

    assert 1 == len(versions)
    assert all(each.endswith(f"=={versions.copy().pop()}") for each in siblings)
    assert 7 == len(files)


def test_no_tracked_file_names_a_registry_or_a_path_of_one_machine() -> None:
    this = Path(__file__)
    texts = [path for path in tracked() if path != this and path.name not in {"uv.lock", "package-lock.json"}]

    found = []
    for path in texts:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{number}" for number, line in enumerate(lines, 1) if TRACES.search(line)]

    assert [] == found


@pytest.mark.parametrize("package", ["core", "ingest_api", "stream", "loader", "sync", "lineage"])
def test_a_package_has_its_readme_types_and_tests(package: str) -> None:
    folder = ROOT / "packages" / package

    assert (folder / "README.md").read_text().startswith(f"# tidemill-{package.replace('_', '-')}")
    assert (folder / "src" / f"tidemill_{package}" / "py.typed").exists()
    assert list(folder.glob("tests/**/test_*.py"))


def test_property_tests_share_one_profile() -> None:
    own = [
        str(path.relative_to(ROOT))
        for path in tracked("packages/*/tests/**.py", "tests/**.py", "deploy/tests/**.py")
        if path != Path(__file__) and re.search(r"register_profile", path.read_text())
    ]

    assert [] == own
