"""The viewer's files: OHIF's own build of one version, fetched from the npm registry and checked; never part of ours.

`python -m dicomweb.viewerpackage` puts them where `folder` looks. Left out are source maps, the runtime for AI in the
browser (models run on the node) and samples that speak to foreign hosts: a quarter of the package is what is used.
"""

import argparse
import base64
import gzip
import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from pacs.errors import FilmroomError
from pacs.settings import Settings, load

PACKAGE, VERSION = "@ohif/app", "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
NAME = f"ohif-{VERSION}"
INSIDE = "package/dist/"  # of the package, where its build is
LICENCE = "package/LICENSE"
# of the build: what runs models in the browser, what is configured elsewhere, and what nobody here asks for
LEFT_OUT = ("ort/", "app-config.js", "google.js", "oidc-client.min.js", "silent-refresh.html", "_", "serve.json")
SQUEEZED = frozenset({".js", ".css", ".wasm", ".svg", ".json", ".html"})
SQUEEZED_FROM = 2048  # bytes
SECONDS = 300


class NotFetched(FilmroomError):
    """The viewer could not be had; the message says why, and what to do."""


def folder(settings: Settings) -> Path | None:
    """Where the viewer's files are: in the home, beside the installed Python, or in the user's cache; None where they
    have not been fetched."""
    home = settings.filmroom_home
    places = [] if home is None else [home / "viewer" / NAME]
    return next((place for place in [*places, shared(), cache()] if is_there(place)), None)


def is_there(place: Path) -> bool:
    """Whether a folder holds the viewer; one is put in its place whole or not at all."""
    return (place / "index.html").is_file()


def shared() -> Path:
    """The folder that belongs to this Python environment: that of an image, or of all users of a machine."""
    return Path(sys.prefix) / "share" / "filmroom" / NAME


def cache() -> Path:
    """The folder of the user's cache that holds this version."""
    return user_cache_path("filmroom", appauthor=False) / NAME


def fetch(target: Path, package: Path | None = None) -> None:
    """Fetch (unless `package` is there already), check and unpack into `target`. Raises NotFetched."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".viewer-", dir=target.parent) as work:
        found = package or _pack(Path(work))
        check(found)
        unpack(found, Path(work) / NAME)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(Path(work) / NAME, target)


def _pack(work: Path) -> Path:
    """The package as npm fetches it: through the registry and the proxy that npm is set up with."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched("npm is not installed, and the viewer comes with it; install npm, then: make viewer")
    line = [npm, "pack", "--silent", "--ignore-scripts", "--fetch-retries=0", f"{PACKAGE}@{VERSION}"]
    try:
        subprocess.run(line, cwd=work, check=True, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or b""
        reason = told.decode("utf-8", "replace").strip().splitlines()[:1]
        raise NotFetched(f"npm could not fetch {PACKAGE}@{VERSION} ({' '.join(reason) or error}).") from error
    found = next(work.glob("*.tgz"), None)
    if found is None:
        raise NotFetched(f"npm fetched nothing for {PACKAGE}@{VERSION}.")
    return found


def check(package: Path) -> None:
    """Raises NotFetched unless the package is byte for byte the one that was pinned here (subresource integrity)."""
    digest = hashlib.sha512(package.read_bytes()).digest()
    if not hmac.compare_digest(f"sha512-{base64.b64encode(digest).decode()}", INTEGRITY):
        raise NotFetched(f"The package fetched for {PACKAGE}@{VERSION} is not the one that was pinned; not installed.")


def unpack(package: Path, target: Path) -> None:
    """The files that are used, and large ones once more in gzip, for clients that are far away."""
    with tarfile.open(package) as members:
        for member, name in _used(members):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = members.extractfile(member)
            assert source is not None  # `_used` gives files only
            content = source.read()
            path.write_bytes(content)
            if path.suffix in SQUEEZED and len(content) >= SQUEEZED_FROM:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 6, mtime=0))


def _used(members: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in members:
        name = "LICENSE" if member.name == LICENCE else member.name.removeprefix(INSIDE)
        inside = member.name == LICENCE or member.name.startswith(INSIDE)
        if member.isfile() and inside and is_used(name):
            yield member, name


def is_used(name: str) -> bool:
    """Whether a file of the build is kept; names that would leave the folder are not."""
    path = Path(name)
    return not (path.is_absolute() or ".." in path.parts or path.suffix == ".map" or name.startswith(LEFT_OUT))


def main(argv: Sequence[str]) -> int:
    """Fetch what is missing; one line, whatever comes of it."""
    parser = argparse.ArgumentParser(prog="python -m dicomweb.viewerpackage", description="Fetch the viewer's files.")
    parser.add_argument("--into", type=Path, help="the folder to keep them in, instead of the user's cache")
    parser.add_argument("--package", type=Path, help="the package of npm, where it is at hand")
    args = parser.parse_args(argv)
    target = cache() if args.into is None else args.into / NAME
    try:
        found = (target if is_there(target) else None) if args.into else folder(load())
        if found is None:
            fetch(target, args.package)
    except (FilmroomError, OSError, tarfile.TarError) as error:
        reason = error.message if isinstance(error, FilmroomError) else f"its files cannot be kept ({error})."
        print(f"No viewer on the web port: {reason}", file=sys.stderr)
        return 1
    print(f"The viewer is there: {found or target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
