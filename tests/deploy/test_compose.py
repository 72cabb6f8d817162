"""deploy/compose.yaml holds together, and each command and check in it does outside what it does there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pacs.embedded.binaries import valkey_program
from pacs.embedded.process import spawn
from pacs.errors import SettingsError
from pacs.hardening import refuse_unsafe
from pacs.settings import load, schema
from tests.deploy import shipped
from tests.deploy.proxied import free_port, wait_for

SERVICES = {"backend", "dimse", "clerk", "ai", "frontend", "nginx", "postgres", "redis"}
ONCE = {"migrate"}  # ends, and is waited for
KEYS = {
    "name", "image", "build", "user", "read_only", "cap_drop", "security_opt", "tmpfs", "restart", "networks",
    "stop_grace_period", "secrets", "logging", "volumes", "environment", "command", "depends_on", "healthcheck",
    "deploy", "ports", "shm_size",
}  # fmt: skip
PROCESSES = ("backend", "frontend", "dimse", "clerk", "ai")
OURS = (*PROCESSES, "migrate")


@pytest.fixture(scope="module")
def file():
    return shipped.compose()


def test_the_file_at_the_root_is_two_lines_that_include_the_other():
    text = (shipped.ROOT / "compose.yaml").read_text()
    assert text.splitlines() == ["name: filmroom", "include: [deploy/compose.yaml]"]


def test_services_names_and_volumes_are_those_of_the_contract(file):
    assert set(file["services"]) == SERVICES | ONCE
    assert (file["name"], file["networks"]["filmroom"]["name"]) == ("filmroom", "filmroom")
    assert {"postgres-data", "redis-data"} <= set(file["volumes"])


def test_each_service_is_of_keys_that_compose_knows_and_refers_to_what_is_there(file):
    for name, service in file["services"].items():
        assert set(service) <= KEYS, name
        assert set(service.get("secrets", [])) <= set(file["secrets"])
        assert set(service["networks"]) <= set(file["networks"])
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert (condition["condition"], other in file["services"]) == (wanted, True)
        for source in shipped.mounts(service).values():
            assert source in file["volumes"] or source.startswith(("./", "../")), f"{name}: {source}"


def test_each_service_has_a_health_check_limits_and_reservations(file):
    for name in SERVICES:
        service = file["services"][name]
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        resources = service["deploy"]["resources"]
        assert {"cpus", "memory"} <= set(resources["limits"]), name
        assert resources["reservations"]["memory"], name
        assert service["restart"] == "unless-stopped"


def test_our_processes_are_not_root_and_write_only_what_is_mounted(file):
    for name in (*OURS, "nginx"):
        service = file["services"][name]
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_the_folders_of_the_root_are_those_that_the_processes_use(file):
    env = file["services"]["ai"]["environment"]
    used = load({"FILMROOM_HOME": env["FILMROOM_HOME"], "FILMROOM_CONFIG": os.devnull})
    mounted = {Path(place): source for place, source in shipped.mounts(file["services"]["ai"]).items()}
    assert shipped.path(mounted[used.storage_dir.parent]) == shipped.ROOT / "storage"
    assert shipped.path(mounted[used.models_dirs[-1]]) == shipped.ROOT / "models"
    assert shipped.path(mounted[used.results_dir]) == shipped.ROOT / "results"
    for name in ("backend", "frontend", "dimse", "clerk"):
        assert shipped.mounts(file["services"][name])[str(used.storage_dir.parent)] == "../storage"


def test_a_login_is_required_unless_somebody_says_otherwise(file, secrets):
    for name in ("backend", "frontend"):
        assert settings_of(file["services"][name], secrets).login_required
    opened = shipped.compose(AUTH_MODE="open")["services"]["backend"]
    assert not settings_of(opened, secrets).login_required


def test_only_what_is_encrypted_is_published_beyond_this_machine(file):
    published = {name: service.get("ports", []) for name, service in file["services"].items()}
    assert {name for name, ports in published.items() if ports} == {"nginx", "dimse"}
    beyond = [port for ports in published.values() for port in ports if not port.startswith("127.0.0.1:")]
    assert beyond == ["0.0.0.0:443:8443"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "database_url").write_text("postgresql://filmroom:word@postgres:5432/filmroom")
    (folder / "secret_key").write_text("k" * 48)
    return folder


def settings_of(service, secrets):
    """What `load` makes of a service's environment, its secrets lying elsewhere."""
    given = {name: value.replace("/run/secrets", str(secrets)) for name, value in service["environment"].items()}
    return load(given | {"FILMROOM_CONFIG": str(shipped.ROOT / "config" / "filmroom.toml")})


@pytest.mark.parametrize("name", OURS)
def test_each_environment_is_of_settings_that_load(file, secrets, name):
    service = file["services"][name]
    known = {row.name.upper() for row in schema()} | {"FILMROOM_CONFIG"}
    assert {key.removesuffix("_FILE") for key in service["environment"]} <= known
    settings = settings_of(service, secrets)
    refuse_unsafe(settings)
    assert settings.database_url.startswith("postgresql://filmroom:")
    assert (settings.secret_key, settings.max_upload_bytes) == ("k" * 48, 10 << 30)


def test_the_open_mode_of_compose_is_refused_in_production(secrets):
    service = shipped.compose(AUTH_MODE="open", ENVIRONMENT="production")["services"]["backend"]
    with pytest.raises(SettingsError, match="AUTH_MODE=open is refused in production"):
        refuse_unsafe(settings_of(service, secrets))


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_that_filmroom_knows(file, name):
    line = [sys.executable, "-m", "pacs", *file["services"][name]["command"], "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=shipped.ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_redis_starts_with_the_command_of_its_service(file, tmp_path):
    import redis

    command = file["services"]["redis"]["command"]
    socket = tmp_path / "s"
    line = [*command[1:], "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    with subprocess.Popen([str(valkey_program()), *line], stdout=subprocess.DEVNULL) as server:
        try:
            with redis.Redis(unix_socket_path=str(socket), retry=patient()) as client:
                found = client.config_get("maxmemory-policy") | client.config_get("appendonly")
        finally:
            server.terminate()
    assert found == {"maxmemory-policy": "noeviction", "appendonly": "yes"}


def patient():
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    return Retry(ConstantBackoff(0.1), 100)


@pytest.fixture
def elsewhere(home, empty_database_url, redis_url, tmp_path):
    """What differs where the commands run outside containers: places, addresses, ports."""
    (tmp_path / "database_url").write_text(empty_database_url)
    (tmp_path / "secret_key").write_text("k" * 48)
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FILMROOM_HOME": str(home),
        "FILMROOM_CONFIG": str(shipped.ROOT / "config" / "filmroom.toml"),
        "DICOM_PEERS": str(shipped.ROOT / "config" / "peers.toml"),
        "DATABASE_URL_FILE": str(tmp_path / "database_url"),
        "SECRET_KEY_FILE": str(tmp_path / "secret_key"),
        "REDIS_URL": redis_url,
        "HTTP_HOST": "127.0.0.1",
        "DICOM_HOST": "127.0.0.1",
        "DICOM_PORT": str(free_port()),
        "DISK_RESERVE_GB": "0",
    }


def test_the_commands_make_a_node_whose_health_checks_pass_and_which_ends_when_asked(file, elsewhere, tmp_path):
    ports = {name: {"HTTP_PORT": str(free_port()), "WEB_PORT": str(free_port())} for name in ("backend", "frontend")}
    env = {
        name: file["services"][name]["environment"] | elsewhere | ports.get(name, {}) | {"LOG_LEVEL": "error"}
        for name in OURS
    }
    line = lambda name: [sys.executable, "-m", "pacs", *file["services"][name]["command"]]  # noqa: E731
    before = {name: healthy(file, name, env[name]) for name in PROCESSES}
    assert not any(before.values()), before
    subprocess.run(line("migrate"), env=env["migrate"], check=True, cwd=shipped.ROOT)
    running = {}
    try:
        with (tmp_path / "log").open("wb") as log:
            for name in PROCESSES:
                running[name] = spawn(line(name), log=log, env=env[name])
        for name in PROCESSES:
            wait_for(lambda name=name: healthy(file, name, env[name]), f"{name}: {(tmp_path / 'log').read_text()}")
        url, port = f"http://127.0.0.1:{ports['backend']['HTTP_PORT']}", elsewhere["DICOM_PORT"]
        smoke = [sys.executable, "-m", "pacs", "smoke", "--url", url, "--host", "127.0.0.1", "--port", port]
        subprocess.run(smoke, env=env["dimse"], check=True, cwd=shipped.ROOT)
    finally:
        for process in running.values():
            process.terminate()
        ended = {name: process.wait(60) for name, process in running.items()}
    assert ended == dict.fromkeys(PROCESSES, 0), (tmp_path / "log").read_text()


def healthy(file, name, env):
    """Whether a service's health check passes."""
    kind, *test = file["services"][name]["healthcheck"]["test"]
    line = ["sh", "-c", test[0]] if kind == "CMD-SHELL" else test
    return subprocess.run(line, env=env, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_gpu_is_given_to_the_sidecar_by_profile():
    ai = shipped.interpolated(shipped.read("compose.gpu.yaml"), {})["services"]["ai"]
    assert (ai["profiles"], ai["environment"]["AI_DEVICE"]) == (["gpu"], "cuda")
    (device,) = ai["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert ai["build"]["target"] in targets()


def test_each_build_target_is_in_the_dockerfile(file):
    for name in OURS:
        assert file["services"][name]["build"]["target"] in targets()


def targets():
    text = (shipped.DEPLOY / "Dockerfile").read_text()
    return set(re.findall(r"^FROM .* AS (\S+)$", text, re.M))


def test_the_dockerfile_copies_what_is_there_and_ends_without_root():
    text = (shipped.DEPLOY / "Dockerfile").read_text()
    allowed = (shipped.DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name in [line[1:] for line in allowed if line.startswith("!")]:
        assert list(shipped.ROOT.glob(name)), name
    assert re.search(r"^USER 10001:10001$", text, re.M)
    for line in re.findall(r"pip install .*", text):
        assert "--require-hashes" in line or "--no-index" in line
    for lock in re.findall(r"deploy/(requirements-\w+\.lock)", text):
        pinned = re.findall(r"^\S+==\S+ \\\n    --hash=sha256:", (shipped.DEPLOY / lock).read_text(), re.M)
        assert pinned, lock


def test_env_example_names_the_variables_of_the_file_with_their_defaults():
    text = (shipped.DEPLOY / "compose.yaml").read_text()
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    assert defaults == shipped.env_example()
