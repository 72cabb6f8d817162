"""The viewer: OHIF's own files at the root of WEB_PORT, on one origin with the DICOMweb that it reads (console.md).

Its build knows only the root of a site, so it has a port of its own. What it is told of this node is made here; no
other host is named in it, and its content security policy lets it reach none.
"""

import base64
import hashlib
import json
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from dicomweb import urls, viewerpackage
from dicomweb.metadata import wants_gzip
from pacs.settings import Settings

CONFIG, INDEX = "app-config.js", "index.html"
PAGE = "/viewer"  # with ?StudyInstanceUIDs=
FOR_EVER, ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"
_HASHED = re.compile(r"(^|\.)[0-9a-f]{16}\.[a-z0-9]+$", re.ASCII)  # names that change with their content
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
MEDIA_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".woff2": "font/woff2"}

SOURCE = {
    "friendlyName": "Filmroom",
    "name": "filmroom",
    "qidoRoot": "/dicom-web",
    "wadoRoot": "/dicom-web",
    "wadoUriRoot": "/wado",
    "qidoSupportsIncludeField": True,
    "imageRendering": "wadors",
    "thumbnailRendering": "thumbnail",
    "thumbnailRequestStrategy": "fetch",
    "enableStudyLazyLoad": True,
    "supportsFuzzyMatching": True,
    "supportsWildcard": True,
    "supportsReject": False,
    "dicomUploadEnabled": True,
    "singlepart": "bulkdata,video,pdf",
    "omitQuotationForMultipartRequest": True,
    "bulkDataURI": {"enabled": True},
}
CONFIGURATION = {
    "name": "filmroom",
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 3,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": True,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "groupEnabledModesFirst": True,
    "showErrorDetails": "production",
    "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 25},
    "defaultDataSourceName": "filmroom",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "filmroom",
            "configuration": SOURCE,
        }
    ],
}
# who is not known is shown the way in, and comes back to the page that was asked for
LOGIN = """window.config.httpErrorHandler = error => {
  if (error.status === 401) {
    window.location.assign('/console/login?next=' + encodeURIComponent(location.pathname + location.search));
  }
};
"""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Answers the paths of WEB_PORT that nothing else answers. `policy` is the content security policy of it all."""

    files: Mapping[str, Path]  # by their paths below the root; no other name reaches the disk
    squeezed: frozenset[Path]
    policy: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(Request(scope))(scope, receive, send)

    def answer(self, request: Request) -> Response:
        """A file of the viewer; its one page for whatever path names none, because it routes by itself."""
        if request.method not in {"GET", "HEAD"}:
            raise HTTPException(405, "The viewer's files are only read.", headers={"Allow": "GET, HEAD"})
        name = request.url.path.lstrip("/")
        if name == CONFIG:
            return self._sent(Response(configuration(), media_type="text/javascript"), ASK_AGAIN)
        path = self.files.get(name)
        if path is None and PurePosixPath(name).suffix and request.headers.get("sec-fetch-dest") != "document":
            raise HTTPException(404, "The viewer has no such file.")
        return self._of_file(path or self.files[INDEX], request)

    def _of_file(self, path: Path, request: Request) -> Response:
        kind = MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kept = FOR_EVER if _HASHED.search(path.name) else ASK_AGAIN
        squeezed = path.with_name(f"{path.name}.gz")
        if squeezed in self.squeezed and wants_gzip(request.headers.get("accept-encoding", "")):
            headers = {"content-encoding": "gzip", "vary": "Accept-Encoding"}
            return self._sent(FileResponse(squeezed, media_type=kind, headers=headers), kept)
        return self._sent(FileResponse(path, media_type=kind, headers={"vary": "Accept-Encoding"}), kept)

    def _sent(self, response: Response, kept: str) -> Response:
        response.headers["content-security-policy"] = self.policy
        response.headers["cache-control"] = kept
        return response


class OfPort(Route):
    """A route that is there at one of our ports only."""

    def __init__(self, path: str, endpoint: Viewer, port: int) -> None:
        super().__init__(path, endpoint)
        self.port = port

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        server = scope.get("server")
        return super().matches(scope) if server is not None and server[1] == self.port else (Match.NONE, {})


def routes(settings: Settings) -> list[BaseRoute]:
    """The root of the viewer's port, the way there from our other port, and whatever else nothing else answers at the
    viewer's port; none where no viewer was fetched."""
    found = viewerpackage.folder(settings)
    if found is None:
        return []
    shown = of(found)

    async def there(request: Request) -> Response:
        return RedirectResponse(f"{root(request, settings)}{PAGE}?{request.url.query}", 307)

    anywhere = OfPort("/{path:path}", shown, settings.web_port)
    return [OfPort("/", shown, settings.web_port), OfPort(PAGE, shown, settings.web_port), Route(PAGE, there), anywhere]


def of(folder: Path) -> Viewer:
    """The viewer whose files lie in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    squeezed = frozenset(path for path in paths if path.suffix == ".gz")
    return Viewer(files, squeezed, policy(files[INDEX].read_bytes()))


def root(request: Request, settings: Settings) -> str:
    """Scheme, host and port of the viewer, as a client of our other port reaches it."""
    base = urls.base(request, settings)
    here = urls.split_host(base.partition("://")[2])
    listening = (request.scope.get("server") or ("", None))[1]
    if here is None or here[1] != listening:  # a proxy shows all on one origin
        return base
    return f"{base.rpartition(':')[0]}:{settings.web_port}"


def policy(page: bytes) -> str:
    """What the viewer's pages may do: run its scripts and workers, speak to this origin, and no more.

    Scripts written into the page are named by their hashes. Its decoders are bound by functions that they make of text
    as they load, hence `unsafe-eval`; style rules are made by its components as they run.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in _INLINE.findall(page)
    )
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' {hashes}",
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "media-src 'self' blob:",
            "connect-src 'self' blob: data:",
            "object-src 'self' blob:",
            "frame-src 'self' blob:",
            "frame-ancestors 'self'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    )


def configuration() -> str:
    """The script that tells the viewer of this node; its paths are those of the origin that it came from."""
    return f"window.config = {json.dumps(CONFIGURATION, indent=1)};\n{LOGIN}"
