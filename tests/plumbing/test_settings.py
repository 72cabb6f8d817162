"""Settings: who wins, and errors that name the setting and the cure."""

import dataclasses
import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.cli import config
from pacs.errors import SettingsError
from pacs.hardening import refuse_unsafe, with_secret_key
from pacs.places import config_folder, run_folder
from pacs.settings import SECTIONS, Settings, load, schema

# operations.md 3, as the runbook promises it
PROMISED = {
    "ENVIRONMENT": "development",
    "HTTP_HOST": "127.0.0.1",
    "HTTP_PORT": 8000,
    "WEB_PORT": 3000,
    "DICOM_HOST": "127.0.0.1",
    "DICOM_PORT": 11112,
    "DICOM_AE_TITLE": "FILMROOM",
    "DICOM_MAX_UPLOAD_SIZE_GB": 10,
    "DICOM_DUPLICATES": "keep",
    "DISK_RESERVE_GB": 2,
    "AI_ENABLED": True,
    "AI_DEVICE": "cpu",
    "AI_SERIES_QUIET_SECONDS": 15,
    "AI_STUDY_QUIET_SECONDS": 60,
    "AI_MAX_WAIT_MINUTES": 30,
    "AI_MAX_CONCURRENT_JOBS": 1,
    "AI_JOB_TIMEOUT_SECONDS": 900,
    "AUTH_MODE": "auto",
    "ACCESS_TOKEN_EXPIRE_MINUTES": 15,
    "ENABLE_DEMO_DATA": False,
    "LOG_LEVEL": "info",
}
UNSET = [
    "DATABASE_URL",
    "REDIS_URL",
    "DATABASE_REPLICA_URL",
    "SECRET_KEY",
    "SECRET_KEY_PREVIOUS",
    "DICOM_TLS_CERT",
    "DICOM_TLS_KEY",
    "DICOM_TLS_CA",
    "OIDC_ISSUER",
    "OIDC_AUDIENCE",
    "OIDC_ROLE_CLAIM",
    "CORS_ORIGINS",
    "TRUSTED_PROXIES",
    "PUBLIC_URL",
    "AI_WEBHOOK_URLS",
    "AI_WEBHOOK_SECRET",
]


@pytest.fixture
def configured(tmp_path):
    """Load with an environment and a configuration file of this test only."""

    def make(text="", **env):
        file = tmp_path / "filmroom.toml"
        file.write_text(text, encoding="utf-8")
        return load({"FILMROOM_HOME": str(tmp_path / "home"), "FILMROOM_CONFIG": str(file), **env})

    return make


def test_every_promised_setting_has_its_default(configured):
    settings = configured()
    assert {name: getattr(settings, name.lower()) for name in PROMISED} == PROMISED
    assert not any(getattr(settings, name.lower()) for name in UNSET)


def test_folders_lie_in_the_home_unless_set(configured, tmp_path):
    settings = configured()
    home = tmp_path / "home"
    assert settings.storage_dir == home / "storage" / "dicom"
    assert settings.results_dir == home / "results"
    assert settings.models_dirs == (config_folder() / "models", home / "models")
    assert configured(DICOM_STORAGE_DIR="/elsewhere").storage_dir.as_posix() == "/elsewhere"


def test_environment_wins_over_secret_file_over_configuration_over_default(configured, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("from-file\n")
    text = 'public_url = "from-toml"'
    assert configured(text).public_url == "from-toml"
    assert configured(text, PUBLIC_URL_FILE=str(secret)).public_url == "from-file"
    assert configured(text, PUBLIC_URL_FILE=str(secret), PUBLIC_URL="from-env").public_url == "from-env"


def test_lists_come_with_commas_from_the_environment_and_as_arrays_from_the_file(configured):
    wanted = ("http://a.example", "https://b.example:8443")
    assert configured(CORS_ORIGINS=", ".join(wanted)).cors_origins == wanted
    assert configured(f"cors_origins = {list(wanted)}").cors_origins == wanted
    assert [path.name for path in configured(AI_MODELS_DIR="/x/one:/x/two").models_dirs] == ["one", "two"]


def test_an_empty_variable_is_unset(configured):
    assert configured(HTTP_PORT="").http_port == 8000


def test_relative_paths_of_the_file_count_from_its_folder(configured, tmp_path):
    assert configured('ai_results_dir = "r"').results_dir == tmp_path / "r"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http_prot = 1", "unknown key 'http_prot' .*'http_port'"),
        ("[http]\nport = 1", "unknown key 'http'"),
        ("http_port = true", "HTTP_PORT must be a whole number"),
        ("http_port = [1]", "http_port must be a whole number, not a list"),
        ('dicom_duplicates = "maybe"', "DICOM_DUPLICATES must be one of keep, replace"),
        ("http_port = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(configured, text, words):
    with pytest.raises(SettingsError, match=words):
        configured(text)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"HTTP_PORT": "eighty"}, "HTTP_PORT must be a whole number, not 'eighty'"),
        ({"DICOM_PORT": "65536"}, "DICOM_PORT must be from 0 to 65535"),
        ({"AI_ENABLED": "perhaps"}, "AI_ENABLED must be true or false"),
        ({"DISK_RESERVE_GB": "nan"}, "DISK_RESERVE_GB must be a number"),
        ({"AI_DEVICE": "tpu"}, "AI_DEVICE must be cpu, cuda"),
        ({"DICOM_AE_TITLE": "SEVENTEEN_LETTERS"}, "DICOM_AE_TITLE must be 1 to 16"),
        ({"DICOM_AE_TITLE": "A\\B"}, "DICOM_AE_TITLE"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL must begin with postgresql://"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL must begin with redis://"),
        ({"SECRET_KEY_FILE": "/nowhere"}, "SECRET_KEY_FILE names /nowhere"),
        ({"DICOM_STORAGE_DIR": "s3://bucket/x"}, "DICOM_STORAGE_DIR: object storage"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8, proxy"}, "TRUSTED_PROXIES must be addresses"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS must be exact origins"),
        ({"FILMROOM_CONFIG": "/nowhere.toml"}, "no configuration file"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(configured, env, words):
    with pytest.raises(SettingsError, match=words):
        configured(**env)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
def test_all_spellings_of_a_database_url_mean_the_same(configured, scheme):
    rest = "u:p%40@host:5433/db?sslmode=require"
    assert configured(DATABASE_URL=f"{scheme}://{rest}").database_url == f"postgresql://{rest}"
    assert configured(DATABASE_URL=f"{scheme}:///db?host=/run").database_url == "postgresql:///db?host=/run"


def test_a_secret_is_neither_shown_nor_printed_nor_in_errors(configured):
    settings = configured(SECRET_KEY="CANARY" * 8, DATABASE_URL="postgresql://u:CANARY@h/d")
    assert "CANARY" not in repr(settings) + config.show(settings)
    with pytest.raises(SettingsError) as caught:
        configured(DATABASE_URL="mysql://u:CANARY@h/d")
    assert "CANARY" not in str(caught.value)


def test_the_key_is_made_once_and_only_its_owner_may_read_it(configured):
    settings = configured()
    settings.home.mkdir()
    made = with_secret_key(settings)
    assert len(made.secret_key) >= 43
    assert stat.S_IMODE((settings.home / "secret_key").stat().st_mode) == 0o600
    assert with_secret_key(settings) == made == configured()
    assert [file.name for file in settings.home.iterdir()] == ["secret_key"]


STRONG = "gQ7c-Vx2pWm9Zs4LkT1yB8nRfH3uJd6eA0_iOoXv"


@pytest.mark.parametrize(
    ("auth_mode", "host", "asked"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "::1", False),
        ("auto", "0.0.0.0", True),
        ("auto", "pacs.example", True),
        ("required", "127.0.0.1", True),
        ("open", "0.0.0.0", False),
    ],
)
def test_a_login_is_asked_wherever_others_can_reach_the_node(auth_mode, host, asked):
    assert Settings(auth_mode=auth_mode, http_host=host).login_required is asked


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"environment": "production"}, "SECRET_KEY"),
        ({"environment": "production", "secret_key": "password"}, "SECRET_KEY"),
        ({"environment": "production", "secret_key": STRONG[:31]}, "SECRET_KEY"),
        ({"environment": "production", "secret_key": "ab" * 24}, "SECRET_KEY"),
        ({"environment": "production", "secret_key": "changeme" + STRONG}, "SECRET_KEY"),
        ({"environment": "production", "secret_key": STRONG, "secret_key_previous": "old"}, "SECRET_KEY_PREVIOUS"),
        ({"environment": "production", "secret_key": STRONG, "enable_demo_data": True}, "ENABLE_DEMO_DATA"),
        ({"environment": "production", "secret_key": STRONG, "auth_mode": "open"}, "AUTH_MODE=open"),
        ({"environment": "production", "secret_key": STRONG, "trusted_proxies": ("0.0.0.0/0",)}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ("nginx",)}, "TRUSTED_PROXIES"),
        ({"cors_origins": ("*",)}, "CORS_ORIGINS"),
        ({"cors_origins": ("null",)}, "CORS_ORIGINS"),
        ({"cors_origins": ("https://viewer.example/",)}, "CORS_ORIGINS"),
        ({"oidc_issuer": "https://login.example"}, "OIDC_AUDIENCE"),
    ],
)
def test_unsafe_combinations_are_refused_in_one_sentence(changes, words):
    with pytest.raises(SettingsError, match=words):
        refuse_unsafe(Settings(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"http_host": "::1"},
        {"http_host": "localhost"},
        {"http_host": "0.0.0.0"},
        {"http_host": "0.0.0.0", "auth_mode": "open"},
        {"auth_mode": "required"},
        {"environment": "production", "secret_key": STRONG, "http_host": "0.0.0.0"},
        {"cors_origins": ("https://viewer.example", "http://localhost:5173"), "trusted_proxies": ("10.0.0.0/8", "::1")},
    ],
)
def test_safe_combinations_serve(changes):
    refuse_unsafe(Settings(**changes))


@given(st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=200))
def test_the_folder_of_sockets_is_short_enough_for_a_socket(name):
    from pathlib import Path

    folder = run_folder(Path("/srv") / name)
    assert len(str(folder / ".s.PGSQL.5432.lock")) < 108
    assert run_folder(Path("/srv") / name) == folder


def test_every_row_belongs_to_a_section_and_says_what_it_means():
    for row in schema():
        assert row.metadata["section"] in SECTIONS
        assert row.metadata["help"].endswith(".")


def test_printed_files_are_up_to_date():
    root = config_folder().parent
    assert config.toml(Settings()) == (root / "config/filmroom.toml").read_text(), "run: make docs"
    assert config.markdown(Settings()) == (root / "docs/settings.md").read_text(), "run: make docs"


def test_the_printed_file_loads_and_names_every_setting(tmp_path):
    text = config.toml(Settings())
    names = re.findall(r"^# (\w+) = ", text, re.M)
    assert names == [row.name for row in schema()]
    file = tmp_path / "f.toml"
    file.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M))
    loaded = load({"FILMROOM_CONFIG": str(file), "FILMROOM_HOME": str(tmp_path)})
    assert loaded == dataclasses.replace(Settings(), filmroom_home=tmp_path)
