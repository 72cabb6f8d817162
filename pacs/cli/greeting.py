"""Is the node ready, and what its user wants to read then."""

import http.client
import ipaddress
import json
import socket

from pacs.settings import Settings

PATIENCE = 5.0


def is_ready(settings: Settings) -> bool:
    """True when nothing but a maintenance window fails in `/ready`, and the DICOM port takes connections."""
    return _http_ready(settings) and _dicom_ready(settings)


def greet(settings: Settings) -> str:
    """Addresses, and the lines that send and see a first study."""
    dicom_host, web = reachable(settings.dicom_host), f"http://{bracketed(settings.http_host)}:{settings.http_port}"
    title, port = settings.dicom_ae_title, settings.dicom_port
    return f"""
Filmroom is ready.
  DICOM     {title} at {dicom_host}:{port}
  DICOMweb  {web}/dicom-web
  Console   {web}/console/
  State     {settings.home}
Send a study and see it:
  storescu -aec {title} +sd +r {dicom_host} {port} FOLDER
  curl -H 'Accept: application/dicom+json' {web}/dicom-web/studies
{_access(settings)} Stop with Ctrl-C.
"""


def reachable(host: str) -> str:
    """The host to connect to where `host` is the one to listen on."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _access(settings: Settings) -> str:
    if settings.login_required:
        return "A login is required. The first administrator: filmroom create-admin --username NAME --email ADDRESS."
    if settings.loopback_only:
        return "Only this machine can reach it, so no login is asked."
    return f"AUTH_MODE={settings.auth_mode}: everybody who reaches {settings.http_host} can read and change all of it."


def bracketed(host: str) -> str:
    """The host to connect to, as a URL holds it."""
    host = reachable(host)
    return f"[{host}]" if ":" in host else host


def _http_ready(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(reachable(settings.http_host), settings.http_port, timeout=PATIENCE)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        checks = json.loads(answer.read())["checks"]
        return answer.status == 200 or {name for name, said in checks.items() if said != "ok"} == {"maintenance"}
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()


def _dicom_ready(settings: Settings) -> bool:
    try:
        socket.create_connection((reachable(settings.dicom_host), settings.dicom_port), PATIENCE).close()
    except OSError:
        return False
    return True
