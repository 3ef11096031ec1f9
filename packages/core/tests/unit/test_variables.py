"""Variables that nothing reads are refused; secrets may lie in files; strangers declare their own."""

import re
import sys
from pathlib import Path

import pytest
import tidemill_core
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core import variables
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry
from tidemill_core.settings import Settings, StorageOptions
from tidemill_core.variables import Variable, declared, read_secret, refuse_unknown


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution of somebody else's that declares a variable."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidemill.variables]\nstranger = stranger_variables:VARIABLES\n")
    (tmp_path / "stranger_variables.py").write_text(
        "from tidemill_core.variables import Variable\n"
        "VARIABLES = [Variable(name='TIDEMILL_STRANGER_TOKEN', text='Its token.', is_secret=True)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh: Registry[list[Variable]] = Registry("tidemill.variables", "declaration of variables")
    monkeypatch.setattr(variables, "VARIABLES", fresh)
    yield
    sys.modules.pop("stranger_variables", None)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("TIDEMILL_POSTGRESS_URL", "TIDEMILL_POSTGRES_URL"),
        ("TIDEMILL_POSTGERS_URL_FILE", "TIDEMILL_POSTGRES_URL_FILE"),
        ("TIDEMILL_S3_ACCES_KEY_ID", "TIDEMILL_S3_ACCESS_KEY_ID"),
        ("TIDEMILL_postgres_url", None),
        ("TIDEMILL_", None),
        ("TIDEMILL_LAKE_URL_FILE", "TIDEMILL_LAKE_URL"),
    ],
)
def test_a_variable_that_nothing_reads_is_refused_with_the_nearest_one(wrong: str, meant: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.from_env({wrong: "x"})

    end = f"did you mean {meant}?" if meant else "(entry point tidemill.variables)"
    assert str(refused.value).startswith(f"{wrong} is no setting")
    assert str(refused.value).endswith(end)


def test_every_unknown_variable_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"TIDEMILL_HOMEE is no setting.*; TIDEMILL_LAKE_ULR is no setting"):
        Settings.from_env({"TIDEMILL_LAKE_ULR": "x", "TIDEMILL_HOMEE": "x", "TIDEMILL_HOME": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEMILL_TEST_POSTGRES_URL", "x"),
        ("TIDEMILL_REQUIRE", "kafka"),
        ("TIDEMILL_SERVICE_HOST", "10.0.0.1"),
        ("TIDEMILL_UI_SERVICE_PORT_HTTP", "80"),
        ("TIDEMILL_UI_PORT", "tcp://10.0.0.1:80"),
        ("TIDEMILL_UI_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("TIDEMILL_PARAM_DAYS", "7"),
        ("TIDEMILL_SYNC_TOKEN", "hush"),
        ("HOME", "/root"),
    ],
)
def test_variables_of_tests_clusters_tasks_and_other_parts_are_left_alone(name: str, value: str) -> None:
    assert Settings.from_env({name: value}) == Settings.from_env({})


def test_a_port_that_no_cluster_has_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="TIDEMILL_UI_PORT is no setting"):
        refuse_unknown({"TIDEMILL_UI_PORT": "3000"})


def test_a_strangers_variable_is_read_once_it_is_declared(stranger: None) -> None:
    refuse_unknown({"TIDEMILL_STRANGER_TOKEN": "x"})
    refuse_unknown({"TIDEMILL_STRANGER_TOKEN_FILE": "x"})

    with pytest.raises(ConfigError, match="did you mean TIDEMILL_STRANGER_TOKEN"):
        refuse_unknown({"TIDEMILL_STRANGR_TOKEN": "x"})


def test_a_strangers_variable_is_refused_without_a_declaration() -> None:
    with pytest.raises(ConfigError, match="TIDEMILL_STRANGER_TOKEN is no setting"):
        refuse_unknown({"TIDEMILL_STRANGER_TOKEN": "x"})


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12))
def test_a_name_is_accepted_exactly_if_a_part_declares_it(rest: str) -> None:
    name = f"TIDEMILL_{rest}"
    is_declared = any(variable.fits(name) for _, variable in declared())
    is_of_tests = name.startswith(("TIDEMILL_TEST_", "TIDEMILL_REQUIRE"))
    is_of_a_cluster = rest.endswith("SERVICE_HOST") or "SERVICE_PORT" in rest

    try:
        refuse_unknown({name: "1"})
        is_accepted = True
    except ConfigError:
        is_accepted = False

    assert is_accepted == (is_declared or is_of_tests or is_of_a_cluster)


@pytest.mark.parametrize("model", [Settings, StorageOptions])
def test_every_secret_can_be_in_a_file(model: type[Settings | StorageOptions], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush\n")
    secrets = [name for name, field in model.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert secrets

    for name in secrets:
        settings = Settings.from_env({f"TIDEMILL_{name.upper()}_FILE": str(file)})

        found = getattr(settings if model is Settings else settings.storage, name)
        assert found.get_secret_value() == "hush"


def test_a_secrets_file_loses_its_line_end_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b" hu\nsh \r\n")

    assert read_secret("TIDEMILL_SYNC_TOKEN", {"TIDEMILL_SYNC_TOKEN_FILE": str(tmp_path / "secret")}) == " hu\nsh "


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe", "it is not text")]
)
def test_a_secrets_file_that_cannot_be_used_is_no_unset_secret(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=f"TIDEMILL_POSTGRES_URL_FILE: .*{reason}"):
        Settings.from_env({"TIDEMILL_POSTGRES_URL_FILE": str(file)})


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    env = {"TIDEMILL_AZURE_KEY": "a", "TIDEMILL_AZURE_KEY_FILE": str(tmp_path / "b")}

    with pytest.raises(ConfigError, match="TIDEMILL_AZURE_KEY and TIDEMILL_AZURE_KEY_FILE are both set"):
        Settings.from_env(env)


def test_what_core_names_core_declares() -> None:
    """Installed alone, core must not refuse a variable that its own `tidemill services` sets."""
    from tidemill_core.settings import VARIABLES as OURS

    folder = Path(tidemill_core.__file__).parent
    named = {
        (file.name, found[0])
        for file in folder.rglob("*.py")
        for found in re.finditer(r"TIDEMILL_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])", file.read_text())
    }
    others = ("TIDEMILL_TEST_", "TIDEMILL_REQUIRE")

    unknown = {each for each in named if not each[1].startswith(others) and not any(v.fits(each[1]) for v in OURS)}

    assert set() == unknown
