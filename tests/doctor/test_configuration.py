"""Every misconfiguration is named, with a cure; a fair configuration is not."""

import dataclasses
import datetime
import os
import resource
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from psycopg.types.json import Jsonb

from pacs.domain.levels import Scope
from pacs.services.doctor import configuration, host, servers
from pacs.services.doctor.configuration import lenient
from pacs.services.doctor.marker import mark, name_of
from pacs.services.doctor.rounds import CHECKS
from pacs.settings import Settings
from tests.doctor.conftest import names
from tests.services.specimens import ct, part10, put

GIB = 1 << 30


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """Not this checkout's own files of variables, certificates and proxy."""
    for module in (configuration, host, servers):
        monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    monkeypatch.setattr(configuration, "ENV_FILES", (".env",))
    monkeypatch.setattr(servers, "PROXY_FILES", ("nginx.conf",))


@pytest.fixture
def configured(looked):
    """Look at the configuration only."""

    def look(name, **given):
        checks = [check for check in CHECKS if check.name == name]
        report = looked(checks, **given)
        assert report.skipped == {}
        for one in report.found:
            assert one.cure
        return [one.finding for one in report.found]

    return look


def test_a_fair_configuration_has_nothing_wrong_with_it(looked, node, monkeypatch):
    put(node, part10(ct()))
    mark(node)
    report = looked([check for check in CHECKS if check.kind == "configuration"])
    assert [one.as_json() for one in report.found] == []


# settings


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"DISK_RESERVE_GB": "much"}, "DISK_RESERVE_GB"),
        ({"HTTP_PORT": "80800"}, "HTTP_PORT"),
        ({"AUTH_MODE": "maybe", "DICOM_PORT": "-1"}, "AUTH_MODE"),
        ({"SECRET_KEY_FILE": "/nonexistent/key"}, "SECRET_KEY_FILE"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL"),
    ],
)
def test_settings_that_cannot_be_read_are_findings_and_the_others_count(configured, tmp_path, environ, word):
    given = {"FILMROOM_HOME": str(tmp_path), "FILMROOM_CONFIG": os.devnull, "DICOM_AE_TITLE": "KEPT", **environ}
    settings, faults = lenient(given)
    assert settings.dicom_ae_title == "KEPT"
    found = configured("settings", faults=faults)
    assert len(found) == len(environ)
    assert any(word in one.what for one in found)


def test_a_misspelt_key_of_the_file_is_a_finding_with_the_key_that_is_meant(tmp_path):
    file = tmp_path / "filmroom.toml"
    file.write_text("dicom_prot = 11113\n")
    settings, faults = lenient({"FILMROOM_HOME": str(tmp_path), "FILMROOM_CONFIG": str(file)})
    assert isinstance(settings, Settings)
    assert "dicom_port" in faults[0]
    assert lenient({"FILMROOM_CONFIG": str(tmp_path / "none.toml")})[1]


def test_misspelt_variables_are_named_with_the_one_that_is_meant(configured, tmp_path):
    (tmp_path / ".env").write_text("# words\nDICOM_PORT=11112\nexport DICOM_AE_TITEL='X'\nFILMROOM_UID=1\n")
    (found,) = configured("unknown-key", environ={"HTTP_PROXY": "http://x", "PATH": "/bin", "HOME": "/root"})
    assert (found.examples, "DICOM_AE_TITLE" in found.what) == (("DICOM_AE_TITEL",), True)
    (tmp_path / ".env").unlink()
    (found,) = configured("unknown-key", environ={"AI_DEVCIE": "cuda", "LOG_LEVEL": "info", "LS_COLORS": "x"})
    assert "AI_DEVICE" in found.what


# secrets and doors


@pytest.mark.parametrize("key", ["short", "changeme" * 5, "a" * 64])
def test_a_weak_key_is_named(configured, settings, key):
    for environment, severity in (("development", "warning"), ("production", "error")):
        (found,) = configured(
            "secret-key", settings=dataclasses.replace(settings, secret_key=key, environment=environment)
        )
        assert found.severity == severity


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("postgresql://u:postgres@db.example/x", 1),
        ("postgresql://u@db.example/x", 1),
        ("postgresql://u:changeme@127.0.0.1/x", 1),
        ("postgresql://u:5f3b8d883b2c347801@db.example/x", 0),
        ("postgresql://filmroom@/filmroom?host=/run", 0),
    ],
)
def test_a_well_known_password_of_the_database_is_named_and_never_shown(configured, settings, url, count):
    found = configured("database-password", settings=dataclasses.replace(settings, database_url=url), node=None)
    assert len(found) == count
    assert not any("postgres" in one.what or "changeme" in one.what for one in found)


def test_an_open_archive_proxies_that_are_everybody_and_demo_data_are_named(configured, settings, node):
    open_ = dataclasses.replace(settings, http_host="0.0.0.0", auth_mode="open")
    assert configured("open-access", settings=open_)[0].severity == "warning"
    assert (
        configured("open-access", settings=dataclasses.replace(open_, environment="production"))[0].severity == "error"
    )
    assert configured("trusted-proxies", settings=dataclasses.replace(settings, trusted_proxies=("0.0.0.0/0",)))
    stored = put(node, part10(ct()))
    production = dataclasses.replace(settings, environment="production")
    assert configured("demo-data", settings=production) == []
    with node.pool.connection() as connection:
        connection.execute("UPDATE study SET demo = true WHERE study_uid = %s", (stored.study_uid,))
    (found,) = configured("demo-data", settings=production)
    assert found.examples == (stored.study_uid,)
    assert configured("demo-data") == []
    with node.pool.connection() as connection:
        connection.execute("UPDATE study SET demo = false")
    assert configured("demo-data", settings=dataclasses.replace(production, enable_demo_data=True))


def test_a_login_that_nobody_can_pass_is_named(configured, settings):
    assert configured("no-admin") == []
    assert configured("no-admin", settings=dataclasses.replace(settings, auth_mode="required"))


def test_files_that_others_may_read_are_named_and_closed(looked, configured, settings):
    key = settings.home / "secret_key"
    key.write_text("x" * 40)
    key.chmod(0o644)
    mode = settings.home.stat().st_mode
    settings.home.chmod(0o777)
    (found,) = configured("file-modes")
    assert set(found.examples) == {str(key), str(settings.home)}
    report = looked([check for check in CHECKS if check.name == "file-modes"], fix=True)
    assert report.well
    assert key.stat().st_mode & 0o777 == 0o600
    assert settings.home.stat().st_mode & 0o777 == 0o711
    assert configured("file-modes") == []
    settings.home.chmod(mode)


def test_a_file_of_variables_with_a_secret_that_others_may_read_is_named(configured, tmp_path):
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=5f3b8d883b2c\n")
    file.chmod(0o644)
    (found,) = configured("file-modes")
    assert found.examples == (str(file),)
    file.write_text("DICOM_PORT=11112\nPOSTGRES_PASSWORD=\n")
    assert configured("file-modes") == []


@pytest.mark.parametrize("text", ["[peers.X]\nprot = 3\n", "[peers", '[peers.X]\nservices = ["fly"]\n', "[piers.X]\n"])
def test_errors_in_the_peers_file_are_named(configured, settings, tmp_path, text):
    file = tmp_path / "peers.toml"
    named = dataclasses.replace(settings, dicom_peers=file)
    assert configured("peers-file", settings=named)
    file.write_text(text)
    (found,) = configured("peers-file", settings=named)
    assert str(file) in found.what
    file.write_text('[peers.WORKSTATION]\nhost = "127.0.0.1"\nport = 104\n')
    assert configured("peers-file", settings=named) == []


# the machine


def test_a_disk_that_is_short_is_named_by_how_short_it_is(configured, settings, monkeypatch):
    free = SimpleNamespace(total=100 * GIB, used=0, free=5 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    assert configured("disk-space")[0].severity == "warning"
    below = dataclasses.replace(settings, disk_reserve_gb=6.0)
    assert configured("disk-space", settings=below)[0].severity == "error"


def test_an_old_python_few_open_files_and_a_wrong_year_are_named(configured, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "3.9" in configured("python-version")[0].what
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (256, 256))
    assert "256" in configured("open-files")[0].what

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1970, 1, 2, tzinfo=tz)

    monkeypatch.setattr(host, "datetime", Wrong)
    assert "1970" in configured("clock")[0].what


def test_a_clock_apart_from_the_database_and_one_that_went_back_are_named(configured, node, monkeypatch):
    now = host.time.time
    monkeypatch.setattr(host, "time", SimpleNamespace(time=lambda: now() + 90))
    (found,) = configured("clock")
    assert (found.severity, "90 s" in found.what) == ("error", True)
    monkeypatch.undo()
    stored = put(node, part10(ct()))
    with node.pool.connection() as connection:
        future = "UPDATE instance SET stored_at = now() + interval '1 day' WHERE sop_instance_uid = %s"
        connection.execute(future, (stored.sop_instance_uid,))
    (found,) = configured("clock")
    assert "later than now" in found.what
    with node.pool.connection() as connection:
        connection.execute("UPDATE instance SET stored_at = now()")


def test_a_port_of_another_program_is_named_with_that_program(configured, settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = configured("ports", settings=dataclasses.replace(settings, dicom_port=port))
        assert f"Port {port} (DICOM_PORT)" in found.what
        assert str(os.getpid()) in found.what
    assert configured("ports", settings=dataclasses.replace(settings, dicom_port=port)) == []


def test_a_store_in_memory_or_over_several_disks_is_named(configured, node, settings, tmp_path, monkeypatch):
    put(node, part10(ct()))
    monkeypatch.setattr(host, "filesystem", lambda _folder: "tmpfs")
    assert "memory" in configured("storage-place")[0].what
    monkeypatch.undo()
    if os.path.isdir("/dev/shm") and os.stat("/dev/shm").st_dev != settings.storage_dir.stat().st_dev:
        other = dataclasses.replace(settings, dicom_storage_dir=str(tmp_path / "store"))
        (tmp_path / "store" / "objects").mkdir(parents=True)
        (tmp_path / "store" / "tmp").symlink_to("/dev/shm")
        assert any("several disks" in one.what for one in configured("storage-place", settings=other))


def test_the_kind_of_a_file_system_is_read():
    assert host.filesystem(host.Path("/proc")) == "proc"


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate that ends in so many days; its path and its key's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(days, name="tls"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        paths = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return paths

    return make


def test_certificates_that_end_or_are_unreadable_or_have_another_key_are_named(
    configured, settings, certificate, tmp_path
):
    def with_files(cert, key):
        changed = dataclasses.replace(settings, dicom_tls_port=2762, dicom_tls_cert=cert, dicom_tls_key=key)
        return configured("certificate", settings=changed)

    cert, key = certificate(365)
    assert with_files(cert, key) == []
    assert with_files(*certificate(12, "soon"))[0].severity == "warning"
    assert with_files(*certificate(0.5, "tomorrow"))[0].severity == "error"
    (ended,) = with_files(*certificate(-3, "ended"))
    assert (ended.severity, "ended on" in ended.what) == ("error", True)
    assert "do not belong together" in with_files(cert, certificate(365, "other")[1])[0].what
    assert "cannot be read" in with_files(tmp_path / "none.crt", key)[0].what
    assert "cannot be read" in with_files(cert, tmp_path / "none.key")[0].what
    (tmp_path / "odd.crt").write_text("no certificate")
    assert "PEM" in with_files(tmp_path / "odd.crt", key)[0].what
    shipped = tmp_path / "deploy" / "secrets" / "tls"
    shipped.mkdir(parents=True)
    ends = certificate(2, "proxy")
    shutil.copy(ends[0], shipped / "tls.crt")
    shutil.copy(ends[1], shipped / "tls.key")
    assert "proxy" in configured("certificate")[0].what


# servers


FAIR = (
    "http { client_max_body_size 10g; client_body_timeout 60s; proxy_request_buffering off; proxy_buffering off;"
    " proxy_read_timeout 900s; }"
)


@pytest.mark.parametrize(
    ("fair", "wrong", "word"),
    [
        ("client_max_body_size 10g;", "client_max_body_size 512M;", "0.5 GiB"),
        ("client_max_body_size 10g;", "", "1 MiB"),
        ("proxy_read_timeout 900s;", "proxy_read_timeout 30;", "30 s"),
        ("proxy_read_timeout 900s;", "# proxy_read_timeout 900s;\n", "60 s"),
        ("proxy_request_buffering off;", "proxy_request_buffering on;", "proxy_request_buffering"),
        ("proxy_buffering off;", "", "proxy_buffering"),
    ],
)
def test_limits_of_the_proxy_that_are_lower_than_the_nodes_are_named(configured, tmp_path, fair, wrong, word):
    file = tmp_path / "nginx.conf"
    file.write_text(FAIR)
    assert configured("proxy-limits") == []
    file.write_text(FAIR.replace(fair, wrong))
    (found,) = configured("proxy-limits")
    assert word in found.what


def test_the_proxy_is_compared_with_the_limit_in_force(configured, settings, tmp_path):
    file = tmp_path / "elsewhere.conf"
    file.write_text(FAIR)
    larger = dataclasses.replace(settings, dicom_max_upload_size_gb=20.0)
    (found,) = configured("proxy-limits", settings=larger, proxy=file)
    assert "20 GiB" in found.what
    file.write_text(FAIR.replace("10g", "0"))
    assert configured("proxy-limits", settings=larger, proxy=file) == []
    (tmp_path / ".env").write_text("DICOM_MAX_UPLOAD_SIZE_GB=30\n")
    file.write_text(FAIR)
    assert "30 GiB" in configured("proxy-limits", proxy=file)[0].what


def test_the_proxy_that_is_shipped_fits_the_defaults():
    root = host.Path(__file__).resolve().parents[2]
    case = SimpleNamespace(proxy=root / "deploy" / "nginx" / "nginx.conf", settings=Settings())
    assert list(servers.proxy(case)) == []


def test_promises_that_postgres_does_not_keep_are_named(configured, monkeypatch):
    real = servers._server
    for name, wanted, severity, _why in servers.PROMISES:
        wrong = {"on": "off", "off": "on", "UTF8": "SQL_ASCII"}[wanted]
        monkeypatch.setattr(servers, "_server", lambda case, n=name, w=wrong: {**real(case), n: w})
        (found,) = configured("postgres-durability")
        assert (found.examples, found.severity) == ((name,), severity)
    monkeypatch.setattr(servers, "_server", lambda case: {**real(case), "server_version_num": "130009"})
    assert configured("postgres-version")
    monkeypatch.undo()
    assert real is servers._server


def test_a_role_whose_commits_do_not_wait_is_named_for_what_it_is(configured, node):
    with node.pool.connection() as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone()
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    (found,) = configured("postgres-durability")
    assert found.examples == ("synchronous_commit",)
    with node.pool.connection() as connection:
        connection.execute(f"ALTER DATABASE {name} RESET synchronous_commit")
    assert configured("postgres-durability") == []


def test_few_connections_are_named(configured, monkeypatch):
    from pacs.services.doctor.case import Case

    real = Case.rows
    few = {"used": 25, "most": 30}
    monkeypatch.setattr(Case, "rows", lambda self, name, **p: [few] if name == "backends" else real(self, name, **p))
    assert len(configured("postgres-connections")) == 2


def test_a_redis_that_forgets_keeps_nothing_or_is_old_is_named(configured, settings):
    import redis

    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        try:
            assert "allkeys-lru" in configured("redis-policy")[0].what
            assert configured("redis-persistence")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")


def test_servers_that_are_away_are_named_and_what_needs_them_is_skipped(looked, settings, tmp_path):
    from pacs.node import build

    away = dataclasses.replace(
        settings, database_url=f"postgresql:///x?host={tmp_path}", redis_url=f"unix://{tmp_path}/no"
    )
    node = build(away, component="test")
    report = looked(CHECKS, settings=away, node=node)
    node.close()
    assert {"database", "redis"} <= set(names(report))
    assert "counters" in report.skipped
    assert not report.well


def test_an_old_schema_is_named_and_its_data_is_not_judged(looked, settings, empty_database_url):
    from pacs.node import build

    empty = dataclasses.replace(settings, database_url=empty_database_url)
    node = build(empty, component="test")
    report = looked(CHECKS, settings=empty, node=node)
    node.close()
    (found,) = [one for one in report.found if one.check.name == "schema"]
    assert "filmroom db upgrade" in found.finding.what
    assert "counters" in report.skipped


# who belongs to whom


def test_the_store_of_another_database_is_named_and_nothing_is_cured_by_it(configured, looked, node, settings):
    put(node, part10(ct()))
    mark(node)
    assert configured("strange-store") == []
    file, name = settings.storage_dir / "store-id", name_of(settings.storage_dir)
    for other in ("f" * 32, ""):
        file.write_text(other)
        assert configured("strange-store") == []  # its objects are there, as after a restore: the clerk names it again
        mark(node)
        assert name_of(settings.storage_dir) == name
    objects, away = settings.storage_dir / "objects", settings.home / "away"
    objects.rename(away)
    objects.mkdir()
    assert configured("strange-store") == []  # the same store, which has lost its files
    file.write_text("f" * 32)
    mark(node)
    assert "is another" in configured("strange-store")[0].what
    report = looked([check for check in CHECKS if check.name == "missing-file"], fix=True, accept_loss=True)
    assert "strange-store" in report.found[0].failed
    objects.rmdir()
    assert "mounted" in configured("strange-store")[0].what
    away.rename(objects)
    mark(node)


def test_an_empty_database_before_a_store_with_objects_of_another_is_named(settings, node, template_database, looked):
    from pacs.node import build
    from tests.conftest import TEMPLATE, _create_database

    put(node, part10(ct()))
    mark(node)
    name = name_of(settings.storage_dir)
    fresh = dataclasses.replace(settings, database_url=_create_database(template_database, TEMPLATE))
    other = build(fresh, component="other")
    mark(other)
    report = looked([check for check in CHECKS if check.name == "strange-store"], settings=fresh, node=other)
    assert names(report) == ["strange-store"]
    other.close()
    assert name_of(settings.storage_dir) == name


def test_a_store_without_its_objects_is_never_named_again(configured, node, settings):
    put(node, part10(ct()))
    mark(node)
    name, away = name_of(settings.storage_dir), settings.home / "the-right-disk"
    settings.storage_dir.rename(away)
    (settings.storage_dir / "objects").mkdir(parents=True)
    mark(node)
    assert name_of(settings.storage_dir) == ""
    assert "is another" in configured("strange-store")[0].what
    shutil.rmtree(settings.storage_dir)
    away.rename(settings.storage_dir)
    assert name_of(settings.storage_dir) == name


def test_doors_without_a_clerk_or_a_sidecar_and_a_forgotten_window_are_named(configured, node, settings):
    import psycopg

    with psycopg.connect(settings.database_url, application_name="filmroom web"):
        assert configured("no-clerk")
        assert "no sidecar" in configured("sidecar")[0].what
    assert configured("no-clerk") == []
    window = Jsonb({"state": "on", "since": "2026-01-01T00:00:00+00:00"})
    with node.pool.connection() as connection:
        connection.execute("INSERT INTO node_state (key, value) VALUES ('maintenance', %s)", (window,))
    assert "forgotten" in configured("maintenance")[0].what
    with node.pool.connection() as connection:
        connection.execute("DELETE FROM node_state WHERE key = 'maintenance'")


def test_a_sidecar_on_another_device_or_not_ready_is_named(configured, node, settings):
    cuda = dataclasses.replace(settings, ai_device="cuda")
    node.models.present("here:1", ready=True, device="cuda", provider="CPUExecutionProvider")
    assert "CPUExecutionProvider" in configured("sidecar", settings=cuda)[0].what
    node.models.present("here:1", ready=False, device="cuda", reason="device", message="There is no GPU.")
    assert "There is no GPU." in configured("sidecar")[0].what
    node.models.absent("here:1")


def test_a_gpu_that_is_wanted_and_not_there_is_named(configured, node, settings, monkeypatch):
    monkeypatch.setattr(servers, "GPU_PLACES", ("/nonexistent/gpu",))
    cuda = dataclasses.replace(settings, ai_device="cuda:0")
    assert configured("gpu") == []
    assert "cuda:0" in configured("gpu", settings=cuda)[0].what
    node.models.present("far:1", ready=True, device="cuda", provider="CUDAExecutionProvider")
    assert configured("gpu", settings=cuda) == []  # it is at another machine
    node.models.absent("far:1")


def test_folders_of_models_that_are_missing_or_empty_are_named(configured, settings, tmp_path):
    gone = dataclasses.replace(settings, ai_models_dir=(tmp_path / "none",))
    assert configured("no-models", settings=gone)[0].severity == "error"
    empty = dataclasses.replace(settings, ai_models_dir=(tmp_path,))
    assert configured("no-models", settings=empty)[0].severity == "warning"
    assert configured("no-models", settings=dataclasses.replace(gone, ai_enabled=False)) == []


def test_a_search_without_its_index_of_trigrams_is_named_and_cured(looked, node):
    (check,) = [check for check in CHECKS if check.name == "no-trigrams"]
    with node.pool.connection() as connection:
        if connection.execute("SELECT to_regclass('study_trigrams')").fetchone() == (None,):
            pytest.skip("this Postgres has no pg_trgm")
        connection.execute("DROP INDEX study_trigrams")
    report = looked([check], fix=True)
    assert report.found
    assert report.well
    assert looked([check]).found == []


def test_every_check_has_a_name_of_its_own_says_what_it_finds_and_has_a_cure():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert sum(check.kind == "damage" for check in CHECKS) >= 15
    assert sum(check.kind == "configuration" for check in CHECKS) >= 15
    assert all(check.finds for check in CHECKS)


def test_the_holder_of_a_port_is_found_in_another_process():
    code = "import socket,time; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True)"
    code += "; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert host.listener(int(process.stdout.readline())) == process.pid
    finally:
        process.kill()
        process.wait()


def test_the_sweep_moves_nothing_in_the_store_of_another_database(node, settings, template_database):
    from pacs.node import build
    from pacs.services.sweep import sweep
    from tests.conftest import TEMPLATE, _create_database

    stored = put(node, part10(ct()))
    [row] = node.retrieve.locate(Scope(stored.study_uid))
    path = settings.storage_dir / "objects" / row.object_name
    os.utime(path, (0, 0))
    node.ingest.close()  # its file is held no longer
    del node.__dict__["ingest"]
    mark(node)
    fresh = dataclasses.replace(settings, database_url=_create_database(template_database, TEMPLATE))
    other = build(fresh, component="other")
    sweep(other)
    other.close()
    assert path.exists()
    sweep(node)
    assert path.exists()
