"""Reads OCI layouts (image-spec, image-layout.md), in a directory or a tar; `docker save` since 25 writes one too."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from argosy.cli.images.archive import BrokenArchiveError, Files, parse_json, read_document
from argosy.cli.images.layer import LayerMaker
from argosy.cli.images.local import LocalImage, LocalLayer, assemble
from argosy.cli.images.platforms import Platform, platform_of
from argosy.core.errors import InvalidError
from argosy.core.oci import media
from argosy.core.oci.digests import digest_of, hex_of, is_digest
from argosy.core.oci.names import normalise

INDEX: Final = "index.json"
MARKER: Final = "oci-layout"
_REF: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"
_MAX_DEPTH: Final = 4


def is_layout(files: Files) -> bool:
    """Whether it is an OCI layout."""
    return files.has(INDEX) and files.has(MARKER)


def read_layout(files: Files, maker: LayerMaker, name: str, platform: Platform) -> LocalImage:
    """Return the layout's image for a platform; of several the one that is named like `name`.

    The manifest is kept as it is unless a layer is stored plain, which is compressed: then it gets a new one.
    """
    return _Layout(files, maker).image(name, platform)


class _Layout:
    def __init__(self, files: Files, maker: LayerMaker) -> None:
        self._files = files
        self._maker = maker

    def image(self, name: str, platform: Platform) -> LocalImage:
        index = parse_json(self._files.source, read_document(self._files, INDEX), INDEX)
        descriptor = self._select(self._candidates(index, 0), name, platform)
        raw = self._document(descriptor)
        manifest = self._json(raw, "manifest")
        config_raw = self._document(manifest.get("config"))
        config = self._json(config_raw, "configuration")
        layers = self._layers(manifest, config)
        found = platform_of(config)
        if not platform.fits(found):
            raise self._broken(f"it is for {found}, not for {platform}")
        if [layer.digest for layer in layers] == [d["digest"] for d in manifest["layers"]]:
            return LocalImage(raw, config_raw, tuple(layers))
        return assemble(config_raw, layers)

    def _candidates(self, index: Any, depth: int) -> list[dict[str, Any]]:
        """Return the descriptors of all manifests, those of nested indexes with what the outer says of them."""
        listed = index.get("manifests") if isinstance(index, dict) else None
        if not isinstance(listed, list) or depth > _MAX_DEPTH:
            raise self._broken(f"its {INDEX} lists no manifests")
        found = []
        for descriptor in listed:
            if not isinstance(descriptor, dict):
                raise self._broken(f"its {INDEX} lists something that is no descriptor")
            if descriptor.get("mediaType") in media.INDEXES:
                inner = self._candidates(self._json(self._document(descriptor), "inner index"), depth + 1)
                outer = descriptor.get("annotations") or {}
                found += [{**d, "annotations": {**outer, **(d.get("annotations") or {})}} for d in inner]
            elif descriptor.get("mediaType") in media.MANIFESTS:
                found.append(descriptor)
        return found

    def _select(self, candidates: list[dict[str, Any]], name: str, platform: Platform) -> dict[str, Any]:
        # Attestations are manifests too, of the platform unknown/unknown.
        images = [c for c in candidates if not _is_attestation(c)]
        if not images:
            raise self._broken("it has no image")
        fitting = [c for c in images if "platform" not in c or platform.fits(platform_of(c["platform"] or {}))]
        if not fitting:
            there = sorted({str(platform_of(c["platform"])) for c in images if c.get("platform")})
            raise self._broken(f"it has no image for {platform}, only for {', '.join(there)} (choose with --platform)")
        if len({c.get("digest") for c in fitting}) == 1:
            return fitting[0]
        named = [c for c in fitting if any(_names(ref, name) for ref in _refs(c))]
        if len({c.get("digest") for c in named}) == 1:
            return named[0]
        refs = sorted({ref for c in fitting for ref in _refs(c)[:1]})
        raise self._broken(
            f"it has {len(fitting)} images for {platform}, none of them named {name}: import one by its name, of "
            f"{', '.join(refs) or '(all unnamed)'}"
        )

    def _layers(self, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> list[LocalLayer]:
        listed = manifest.get("layers")
        rootfs = config.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(listed, list) or not isinstance(diff_ids, list) or len(listed) != len(diff_ids):
            raise self._broken("its manifest and its configuration do not list the same layers: it is no image")
        layers = []
        for number, (descriptor, diff_id) in enumerate(zip(listed, diff_ids, strict=True), 1):
            what = f"layer {number} of {len(listed)}"
            path, size = self._blob(descriptor, what)
            layer = self._maker.make(what, partial(self._files.open, path), size)
            if layer.diff_id != diff_id:
                raise self._broken(f"{what} has the content {layer.diff_id}, the image says {diff_id}")
            if layer.digest != descriptor["digest"] and layer.diff_id != descriptor["digest"]:
                raise self._broken(f"{what} ({path}) does not match its digest: it has {layer.digest}")
            kind = descriptor.get("mediaType", layer.media_type)
            if kind not in media.LAYERS:
                raise self._broken(f"{what} is of type {kind!r}, which is no layer that can be unpacked")
            if layer.digest == descriptor["digest"]:
                layer = replace(layer, media_type=kind)
            layers.append(layer)
        return layers

    def _document(self, descriptor: Any) -> bytes:
        path, _ = self._blob(descriptor, "a document")
        data = read_document(self._files, path)
        if (found := digest_of(data)) != descriptor["digest"]:
            raise self._broken(f"its {path} does not match its digest: it has {found}")
        return data

    def _blob(self, descriptor: Any, what: str) -> tuple[str, int]:
        """Return the file and size of the blob that a descriptor means."""
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not isinstance(digest, str) or not is_digest(digest):
            raise self._broken(f"{what} has no sha256 digest: {digest!r}")
        path = f"blobs/sha256/{hex_of(digest)}"
        if not self._files.has(path):
            raise self._broken(f"{what} is missing: it has no {path}")
        size = self._files.size(path)
        if size != descriptor.get("size", size):
            raise self._broken(f"{what} ({path}) has {size} bytes, its descriptor says {descriptor['size']}")
        return path, size

    def _json(self, data: bytes, what: str) -> dict[str, Any]:
        found = parse_json(self._files.source, data, what)
        if not isinstance(found, dict):
            raise self._broken(f"its {what} is no JSON object")
        return found

    def _broken(self, problem: str) -> BrokenArchiveError:
        return BrokenArchiveError(self._files.source, problem)


def _is_attestation(descriptor: Mapping[str, Any]) -> bool:
    kind = (descriptor.get("annotations") or {}).get("vnd.docker.reference.type")
    return kind == "attestation-manifest" or (descriptor.get("platform") or {}).get("os") == "unknown"


def _refs(descriptor: Mapping[str, Any]) -> list[str]:
    annotations = descriptor.get("annotations") or {}
    return [str(annotations[key]) for key in (_CONTAINERD_NAME, _REF) if key in annotations]


def _names(ref: str, name: str) -> bool:
    """Whether an annotation means an image name: it may be the whole name or only the tag."""
    if ref == name.rpartition(":")[2]:
        return True
    try:
        return normalise(ref) == name
    except InvalidError:
        return False
