"""An OCI image layout: which image of it is meant, and of which layers it is made. Pure.

Sources: the OCI's image-spec 1.1, image-layout.md, image-index.md, manifest.md, config.md, descriptor.md. What reads
the bytes checks each against the digest of the descriptor that names it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from immure.errors import SpecError

#: As many bytes as any of its documents may have, and as many layers as an image.
MOST_DOCUMENT_BYTES, MOST_LAYERS = 4 << 20, 256
#: By the names that the kernel has: Go's, and the operating system.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "i386": "386",
    "i686": "386",
    "armv7l": "arm",
}
_OS = "linux"
_REF = "org.opencontainers.image.ref.name"
_INDEXES = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
_MANIFESTS = frozenset(
    ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
)
#: How each kind of layer is compressed.
_LAYERS: dict[str, Compression] = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}

_T = TypeVar("_T")
Compression = Literal["none", "gzip", "zstd"]
Digest = Annotated[str, Meta(pattern=r"\A(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")]
Size = Annotated[int, Meta(ge=0, le=1 << 50)]


class Platform(Struct, frozen=True):
    """What an image runs on."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(Struct, frozen=True, rename="camel"):
    """What names another document or layer."""

    media_type: str
    digest: Digest
    size: Size
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict[str, str])


class Layer(Struct, frozen=True):
    """A tar archive. `content` is the digest of it as it is when it is not compressed."""

    digest: str
    size: int
    compression: Compression
    content: str


class _Layout(Struct, frozen=True, rename="camel"):
    image_layout_version: Literal["1.0.0"]


class _Index(Struct, frozen=True):
    manifests: Annotated[tuple[Descriptor, ...], Meta(max_length=4096)]


class _Manifest(Struct, frozen=True):
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(min_length=1, max_length=MOST_LAYERS)]


class _Rootfs(Struct, frozen=True):
    diff_ids: Annotated[tuple[Digest, ...], Meta(max_length=MOST_LAYERS)]


class _Config(Struct, frozen=True):
    architecture: str
    os: str
    rootfs: _Rootfs


def check_layout(content: bytes) -> None:
    """Raises SpecError where a file `oci-layout` is none that is known."""
    _decoded(content, _Layout, "oci-layout")


def choose(content: bytes, arch: str, tag: str | None, name: str = "index.json") -> Descriptor:
    """Which of an index's images is for this host. `tag` is a name that the layout gives to it.

    Raises SpecError where there is none, or where several could be meant.
    """
    known = [one for one in _decoded(content, _Index, name).manifests if one.media_type in _MANIFESTS | _INDEXES]
    named = [one for one in known if tag is None or one.annotations.get(_REF) == tag]
    fitting = [one for one in named if one.platform is None or _fits(one.platform, arch)]
    digests = {one.digest for one in fitting}
    if len(digests) == 1:
        return fitting[0]
    tags = sorted({one.annotations[_REF] for one in known if _REF in one.annotations})
    raise SpecError(
        "the layout has several images for this host" if digests else "the layout has no image for this host",
        path="$.spec.image",
        need=f"one for {_OS}/{_ARCHITECTURES.get(arch, arch)}" + (f" named {tag}" if tag is not None else ""),
        have=", ".join(tags) if tags else ", ".join(sorted({_said(one) for one in known})) or "none at all",
        hint="name one of them as FOLDER:NAME" if tags else None,
    )


def is_index(descriptor: Descriptor) -> bool:
    """Whether what it names chooses further."""
    return descriptor.media_type in _INDEXES


def config_of(manifest: bytes) -> Descriptor:
    """Where a manifest's configuration is."""
    return _decoded(manifest, _Manifest, "the manifest").config


def layers_of(manifest: bytes, config: bytes, arch: str) -> tuple[Layer, ...]:
    """The layers of an image, the lowest first. Raises SpecError for what this host can't run, or what is unknown."""
    told, layers = _decoded(config, _Config, "the configuration"), _decoded(manifest, _Manifest, "the manifest").layers
    if not _fits(Platform(architecture=told.architecture, os=told.os), arch):
        raise SpecError(
            "the image is for another platform",
            path="$.spec.image",
            need=f"{_OS}/{_ARCHITECTURES.get(arch, arch)}",
            have=f"{told.os}/{told.architecture}",
        )
    if len(layers) != len(told.rootfs.diff_ids):
        raise SpecError(
            "the image contradicts itself",
            path="$.spec.image",
            need="as many diff_ids in its configuration as layers in its manifest",
            have=f"{len(told.rootfs.diff_ids)} and {len(layers)}",
        )
    return tuple(_layer(one, content) for one, content in zip(layers, told.rootfs.diff_ids, strict=True))


def _layer(descriptor: Descriptor, content: str) -> Layer:
    compression = _LAYERS.get(descriptor.media_type)
    if compression is None:
        raise SpecError(
            "a layer of the image is of an unknown kind",
            path="$.spec.image",
            need="tar, tar+gzip or tar+zstd",
            have=repr(descriptor.media_type),
        )
    return Layer(digest=descriptor.digest, size=descriptor.size, compression=compression, content=content)


def _fits(platform: Platform, arch: str) -> bool:
    return (platform.os, platform.architecture) == (_OS, _ARCHITECTURES.get(arch, arch))


def _said(descriptor: Descriptor) -> str:
    platform = descriptor.platform
    return f"{platform.os}/{platform.architecture}" if platform is not None else descriptor.digest


def _decoded(content: bytes, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{name} of the layout can't be read",
            path="$.spec.image",
            need="an OCI image layout 1.0.0",
            have=str(error),
        ) from error
