"""TLS for DIMSE (PS3.15 B.12, BCP 195): the rules, for callers and for those whom we call.

Version 1.2 or later, ephemeral keys, authenticated encryption, nothing else; no resumption, so that who is let in is
decided for each connection by the files of now.
"""

import re
import ssl
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from pacs.errors import SettingsError
from pacs.settings import Settings

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of version 1.2; those of 1.3 are all of this kind
_FINGERPRINT = re.compile(r"(?:sha-?256)?[ :]*(?:fingerprint=)?((?:[0-9a-f]{2}[: ]?){31}[0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of the settings. Without `authorities` nobody is asked for a certificate."""

    certificate: Path
    key: Path
    authorities: Path | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Differs when one of them was replaced; a missing one counts as zeros."""
        return tuple(_stamp(file) for file in (self.certificate, self.key, self.authorities) if file is not None)


def files_of(settings: Settings) -> TlsFiles:
    """The files of the settings. Raises SettingsError when TLS is asked for and a file is not named."""
    certificate, key = settings.dicom_tls_cert, settings.dicom_tls_key
    if certificate is None or key is None:
        missing = "DICOM_TLS_CERT" if certificate is None else "DICOM_TLS_KEY"
        raise SettingsError(f"DIMSE over TLS needs {missing}, the name of a PEM file; set it.")
    return TlsFiles(certificate, key, settings.dicom_tls_ca)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For those who call. A certificate of theirs is demanded where authorities are named (mutual TLS).

    Raises SettingsError naming the setting and the file that cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _load_certificate(context, files)
    if files.authorities is not None:
        _load_authorities(context, files.authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles | None, authorities: Path | None, *, pinned: bool) -> ssl.SSLContext:
    """For those whom we call: our certificate where there is one, theirs by the authorities, or by its fingerprint
    alone (`pinned`; the caller compares it) where none are named. Host names do not count: DICOM certificates name
    devices. Raises SettingsError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if files is not None:
        _load_certificate(context, files)
    if authorities is not None:
        _load_authorities(context, authorities)
    elif pinned:
        context.verify_mode = ssl.CERT_NONE
    else:
        raise SettingsError("A peer is called over TLS: set DICOM_TLS_CA, or give it a fingerprint in the peers file.")
    return context


def fingerprint(certificate: bytes | None) -> str:
    """SHA-256 of a DER certificate in lower-case hexadecimal digits, empty for none."""
    return sha256(certificate).hexdigest() if certificate else ""


def parse_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint in any of the forms that tools print, as `fingerprint` gives it. Raises ValueError."""
    found = _FINGERPRINT.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError("not a SHA-256 fingerprint")
    return found[1].replace(":", "").replace(" ", "")


def expires_at(file: Path) -> datetime:
    """When the first certificate of a PEM file ends. Raises OSError and ValueError."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    for name, file in (("DICOM_TLS_CERT", files.certificate), ("DICOM_TLS_KEY", files.key)):
        _require_readable(name, file)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"DICOM_TLS_CERT {files.certificate} and DICOM_TLS_KEY {files.key} are no certificate and its key in PEM "
            f"({_word(error)})."
        ) from error


def _no_password() -> NoReturn:
    raise SettingsError("DICOM_TLS_KEY is encrypted; give a key without a passphrase, readable by this user only.")


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    _require_readable("DICOM_TLS_CA", file)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"DICOM_TLS_CA {file} holds no certificates in PEM ({_word(error)}).") from error


def _require_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SettingsError(f"{name} {file} cannot be read ({error.strerror}).") from error


def _word(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else type(error).__name__


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino
