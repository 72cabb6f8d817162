"""A model package: a folder whose every byte is accounted for, and that proves itself before it is used (ai.md 2)."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from ai_sidecar import golden, model_file
from ai_sidecar.manifest import MANIFEST_BYTES, Manifest, parse
from ai_sidecar.runtime import Runtime, Session
from ai_sidecar.tables import Finding, Reader
from pacs.errors import FilmroomError

MANIFEST = "manifest.toml"
MOST_BYTES = 8 << 30
MOST_FILES = 256
CHUNK = 1 << 20

__all__ = ["Finding", "Package", "PackageError", "check", "discover", "load"]


class PackageError(FilmroomError):
    """A package is not used. `code` is the machine reason; `findings` are all that is wrong."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        more = f" ({len(self.findings) - 1} more; see: filmroom ai check)" if len(self.findings) > 1 else ""
        super().__init__(f"{self.findings[0].sentence}{more}")
        self.code = self.reason = self.findings[0].reason


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose files are as its manifest says. `digest` names it: the manifest covers every other file."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    model_sha256: str
    external: bool

    @property
    def digest(self) -> str:
        return self.manifest_sha256

    @property
    def name(self) -> str:
        return self.manifest.model.name

    @property
    def version(self) -> str:
        return self.manifest.model.version

    def session(self, runtime: Runtime, *, cpu: bool = False) -> Session:
        """The model, loaded. Raises RunFailed; PackageError when the file changed since it was checked."""
        return runtime.session(self.digest, self._model, cpu=cpu)

    def _model(self) -> bytes | Path:
        file = self.path / self.manifest.onnx_file
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.model_sha256:
            sentence = f"{self.manifest.onnx_file} changed after it was checked; check the package again."
            raise PackageError([Finding("digest_mismatch", sentence)])
        return file if self.external else content


def discover(folders: Iterable[Path]) -> list[Path]:
    """The folders of all packages: `<name>/<version>/` below each of these that holds a manifest."""
    return [file.parent for folder in folders for file in sorted(folder.glob(f"*/*/{MANIFEST}"))]


def load(path: Path, runtime: Runtime | None = None) -> Package:
    """A package that passed every check and its golden test on `runtime`. Raises PackageError."""
    package, findings = _examine(path)
    if package is not None and not findings:
        findings = golden.prove(package.path, package.manifest, package.session, runtime or Runtime())
    if package is None or findings:
        raise PackageError(findings)
    return package


def check(path: Path, runtime: Runtime | None = None) -> list[Finding]:
    """Everything that is wrong with a package; empty when it may be used."""
    try:
        load(path, runtime)
    except PackageError as error:
        return list(error.findings)
    return []


def _examine(path: Path) -> tuple[Package | None, list[Finding]]:
    """The package without its golden test."""
    try:
        text, content = _manifest_text(path)
        manifest, findings = parse(text)
        if manifest is None:
            return None, findings
        return _with_files(path, manifest, content)
    except _Unusable as unusable:
        return None, [unusable.finding]
    except OSError as error:
        return None, [Finding("unreadable", f"The package cannot be read: {error.strerror}.")]


class _Unusable(Exception):
    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.finding = Finding(reason, sentence)


def _manifest_text(path: Path) -> tuple[str, bytes]:
    file = path / MANIFEST
    if not file.is_file() or file.is_symlink():
        raise _Unusable("manifest_missing", f"There is no {MANIFEST} in {path}.")
    if file.stat().st_size > MANIFEST_BYTES:
        raise _Unusable("too_large", f"{MANIFEST} is larger than {MANIFEST_BYTES >> 10} KiB.")
    content = file.read_bytes()
    try:
        return content.decode("utf-8"), content
    except UnicodeDecodeError:
        raise _Unusable("manifest_unreadable", f"{MANIFEST} is not UTF-8.") from None


def _with_files(path: Path, manifest: Manifest, content: bytes) -> tuple[Package | None, list[Finding]]:
    reader = Reader()
    _place(reader, path, manifest)
    _files(reader, path, manifest)
    _version(reader, manifest)
    if reader.found:
        return None, reader.found
    model = (path / manifest.onnx_file).read_bytes()
    model_file.examine(reader, model, manifest)
    if reader.found:
        return None, reader.found
    digest = hashlib.sha256(content).hexdigest()
    external = model_file.has_external_data(model)
    return Package(path, manifest, digest, manifest.files[manifest.onnx_file], external), []


def _place(reader: Reader, path: Path, manifest: Manifest) -> None:
    wanted = (manifest.model.name, manifest.model.version)
    found = (path.resolve().parent.name, path.resolve().name)
    if found != wanted:
        reader.add("wrong_place", f"The package lies in {'/'.join(found)}; its place is {'/'.join(wanted)}.")


def _files(reader: Reader, path: Path, manifest: Manifest) -> None:
    present, size = set(), 0
    for file in _walk(path):
        name = file.relative_to(path).as_posix()
        if file.is_symlink() or not file.is_file():
            reader.add("not_a_file", f"{name} is a link or no plain file; packages hold plain files only.")
            continue
        present.add(name)
        size += file.stat().st_size
    for name in sorted(present - set(manifest.files) - {MANIFEST}):
        reader.add("uncovered_file", f"[files] does not list {name}.")
    for name in sorted(set(manifest.files) - present):
        reader.add("missing_file", f"[files] lists {name}, which is not there.")
    if size > MOST_BYTES or len(present) > MOST_FILES:
        reader.add("too_large", f"A package has at most {MOST_FILES} files and {MOST_BYTES >> 30} GiB.")
        return
    for name in sorted(present & set(manifest.files)):
        if _sha256(path / name) != manifest.files[name]:
            reader.add("digest_mismatch", f"The sha256 of {name} is not the one in [files].")


def _walk(path: Path) -> Iterator[Path]:
    """All files below, links as what they are and not followed."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        else:
            yield entry


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _version(reader: Reader, manifest: Manifest) -> None:
    wanted = manifest.model.min_ort
    if wanted and _numbers(ort.__version__) < _numbers(wanted):
        reader.add("runtime_too_old", f"The model needs ONNX Runtime {wanted}; this is {ort.__version__}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
