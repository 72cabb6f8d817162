"""The trail as DICOM audit messages, sent to a collector of our own over TLS."""

import base64
import contextlib
import datetime
import random
import re
import socket
import ssl
import threading
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pacs.errors import Unavailable
from pacs.services import audit, auditmessage
from pacs.services.auditexport import Export
from pacs.telemetry import Metrics
from tests.services.specimens import SOURCE, query

HEADER = re.compile(
    rb"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) filmroom (\d+) DICOM\+RFC3881 - \xef\xbb\xbf"
)
CODE = {"csd-code", "codeSystemName", "originalText"}
# PS3.15 A.5.1, element by element: attributes (those with ! are mandatory), children in order with how many
SCHEMA = {
    "AuditMessage": (
        "",
        "EventIdentification! ActiveParticipant+ AuditSourceIdentification! ParticipantObjectIdentification*",
    ),
    "EventIdentification": (
        "EventActionCode EventDateTime! EventOutcomeIndicator!",
        "EventID! EventTypeCode* EventOutcomeDescription?",
    ),
    "ActiveParticipant": (
        "UserID! AlternativeUserID UserName UserIsRequestor! NetworkAccessPointID NetworkAccessPointTypeCode",
        "RoleIDCode*",
    ),
    "AuditSourceIdentification": ("AuditEnterpriseSiteID AuditSourceID!", "AuditSourceTypeCode*"),
    "AuditSourceTypeCode": ("csd-code!", ""),
    "ParticipantObjectIdentification": (
        "ParticipantObjectID! ParticipantObjectTypeCode ParticipantObjectTypeCodeRole",
        "ParticipantObjectIDTypeCode! ParticipantObjectName? ParticipantObjectQuery? ParticipantObjectDetail* "
        "ParticipantObjectDescription*",
    ),
    "ParticipantObjectDetail": ("type! value!", ""),
    "ParticipantObjectDescription": ("", "SOPClass*"),
    "SOPClass": ("UID NumberOfInstances!", "Instance*"),
    "Instance": ("UID!", ""),
    **dict.fromkeys(
        ("EventID", "EventTypeCode", "RoleIDCode", "ParticipantObjectIDTypeCode"),
        ("csd-code! codeSystemName! originalText! displayName", ""),
    ),
    **dict.fromkeys(("EventOutcomeDescription", "ParticipantObjectName", "ParticipantObjectQuery"), ("", "")),
}


def check(element):
    """The element and all below it fit the schema."""
    attributes, children = SCHEMA[element.tag]
    words = attributes.split()
    assert set(element.attrib) <= {word.rstrip("!") for word in words}, element.tag
    assert {word[:-1] for word in words if word.endswith("!")} <= set(element.attrib), element.tag
    pattern = "".join(f"(?:{word.rstrip('!?*+')} )" + {"!": ""}.get(word[-1], word[-1]) for word in children.split())
    assert re.fullmatch(pattern, "".join(f"{child.tag} " for child in element)), (element.tag, list(element))
    for child in element:
        check(child)


class Collector:
    """A syslog server over TLS on a free port. `hangs_up` closes connections before it has read them."""

    def __init__(self, folder, *, says_goodbye=True):
        self.ca, certificate, key = certificates(folder)
        self.messages, self.says_goodbye, self.hangs_up = [], says_goodbye, False
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain:
                self._take(plain)

    def _take(self, plain):
        plain.settimeout(10)
        tls = self._context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=True)
        if self.hangs_up:
            tls.recv(10)
            tls.close()
            return
        data = b""
        while chunk := tls.recv(65536):
            data += chunk
        self.messages += frames(data)
        if self.says_goodbye:
            tls.unwrap()
        tls.close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def frames(data):
    """Messages cut by the lengths before them (RFC 5425 4.3)."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        assert len(found[-1]) == int(length)
        data = rest[int(length) :]
    return found


def certificates(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "collector.pem", folder / "collector.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, certificate, secret


@pytest.fixture(params=[True, False], ids=["says goodbye", "just closes"])
def collector(request, tmp_path):
    made = Collector(tmp_path, says_goodbye=request.param)
    yield made
    made.close()


def exporter(node, collector, **more):
    settings = replace(
        node.settings,
        audit_syslog_host="localhost",
        audit_syslog_port=collector.port,
        audit_syslog_ca=collector.ca,
        **more,
    )
    return Export(node.pool, settings, Metrics("test"))


def write(node, *rows):
    with node.pool.connection() as connection:
        audit.record(connection, list(rows) or [audit.row(SOURCE, "read", study_uid="1.2")])
    node.chain.seal()


def numbers(messages):
    """The row that each message stands for."""
    found = []
    for message in messages:
        head = HEADER.match(message)
        assert head, message[:200]
        assert head[1] == b"85"
        root = ElementTree.fromstring(message[head.end() :])
        check(root)
        [row] = root.findall(".//ParticipantObjectDetail[@type='row']")
        found.append(int(base64.b64decode(row.get("value"))))
    return found


def test_every_sealed_row_arrives_in_order_and_once(node, collector):
    export = exporter(node, collector)
    write(node, *(audit.row(SOURCE, "read", study_uid=f"1.{n}") for n in range(700)))
    assert export.run() >= 700
    expected = [id for (id,) in query(node, "SELECT audit_id FROM audit_seal ORDER BY 1")][-len(collector.messages) :]
    assert numbers(collector.messages) == expected
    collector.messages.clear()
    assert export.run() == 0
    write(node)
    assert exporter(node, collector).run() == 1
    assert len(collector.messages) == 1


def test_what_a_collector_did_not_read_goes_again(node, collector):
    export = exporter(node, collector)
    export.run()
    collector.messages.clear()
    write(node, *(audit.row(SOURCE, "read", study_uid=f"1.{n}") for n in range(400)))
    collector.hangs_up = True
    with pytest.raises(Unavailable):
        export.run()
    collector.hangs_up = False
    assert export.run() == 400
    assert len(set(numbers(collector.messages))) == 400


def test_a_collector_that_is_not_there_or_not_trusted_gets_nothing_and_is_tried_again(node, collector, tmp_path):
    write(node)
    (tmp_path / "other").mkdir()
    stranger, *_ = certificates(tmp_path / "other")
    with pytest.raises(Unavailable, match="AUDIT_SYSLOG_HOST"):
        Export(node.pool, replace(exporter(node, collector)._settings, audit_syslog_ca=stranger), Metrics("x")).run()
    assert collector.messages == []
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
    with pytest.raises(Unavailable):
        Export(node.pool, replace(exporter(node, collector)._settings, audit_syslog_port=port), Metrics("x")).run()
    assert exporter(node, collector).run() > 0


def test_nothing_is_sent_while_no_collector_is_named(node):
    write(node)
    assert node.audit_export.run() == 0


@pytest.mark.parametrize("action", [*auditmessage.EVENTS, "something else"])
def test_messages_fit_the_schema_whatever_the_row_says(action):
    hostile = "a\0<&>\"'\x07\u2028é漢"
    row = {
        "id": 5,
        "at": datetime.datetime(2026, 1, 31, 8, tzinfo=datetime.UTC),
        "door": "dimse",
        "actor": hostile,
        "address": hostile,
        "action": action,
        "outcome": random.choice(["ok", "refused", "failed"]),
        "patient_id": "",
        "study_uid": "",
        "series_uid": "",
        "sop_instance_uid": "1.2.3",
        "detail": {"patients": ["A", hostile], "asked": {"PatientName": hostile}, "times": 3},
    }
    for more in ({}, {"patient_id": "P", "study_uid": "1.2"}, {"study_uid": "1.2", "sop_instance_uid": ""}):
        root = ElementTree.fromstring(auditmessage.xml({**row, **more}, "FILMROOM", "host"))
        check(root)
        patients = root.findall("ParticipantObjectIdentification[@ParticipantObjectTypeCodeRole='1']")
        assert len(patients) == (1 if more.get("patient_id") else 2)
        assert root.find("EventIdentification").get("EventOutcomeIndicator") in {"0", "4", "8"}
