"""OCI image layouts, made of what tests want in their layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF = "org.opencontainers.image.ref.name"
HERE = {"os": "linux", "architecture": "amd64"}


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One of a layer: a file, or by `type` something else."""
    member = tarfile.TarInfo(name)
    member.mode, member.size, member.mtime = 0o644, len(content), 1_000_000
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def archive_of(source: Path) -> bytes:
    """A folder as one layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, arcname=".")
    return out.getvalue()


class Layout:
    """A folder with a layout, to which images are added."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "blobs/sha256").mkdir(parents=True)
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []
        self.write_index()

    def write_index(self) -> None:
        (self.place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))

    def blob(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.place / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def document(self, content: dict[str, Any], kind: str) -> dict[str, Any]:
        return self.blob(json.dumps(content).encode(), kind)

    def path_of(self, descriptor: dict[str, Any]) -> Path:
        return self.place / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")

    def manifest(
        self, *layers: bytes, compression: str = "gzip", platform: dict[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """An image of these archives, not yet in the index."""
        config = {
            **(platform or HERE),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
        }
        kind = LAYER if compression == "none" else f"{LAYER}+{compression}"
        self.layers = [self.blob(packed(one, compression), kind) for one in layers]
        document = {
            "schemaVersion": 2,
            "config": self.document({**config, **changes}, CONFIG),
            "layers": self.layers,
        }
        return self.document(document, MANIFEST)

    def add(self, descriptor: dict[str, Any], tag: str | None = None, platform: dict[str, str] | None = None) -> None:
        more: dict[str, Any] = {"annotations": {REF: tag}} if tag else {}
        if platform:
            more["platform"] = platform
        self.manifests.append({**descriptor, **more})
        self.write_index()


def packed(content: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(content, 1)
    if compression == "zstd":
        return subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout
    return content


def layout_of(place: Path, *layers: bytes, **keywords: Any) -> Layout:
    """One with one image."""
    made = Layout(place)
    made.add(made.manifest(*layers, **keywords))
    return made
