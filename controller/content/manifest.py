"""Makes an Image of a manifest and a configuration: pure. OCI image-spec (manifest.md, config.md), Docker schema 2.

The input is whatever somebody uploaded: every problem is an InvalidError that says what is wrong in which document.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from argosy.core.errors import InvalidError
from argosy.core.image import Image, ImageConfig, Layer
from argosy.core.meta import Meta
from argosy.core.node import Platform
from argosy.core.oci import media
from argosy.core.oci.digests import digest_of, is_digest
from argosy.core.service import Healthcheck

MAX_LAYERS: Final = 400
"""Overlayfs takes 500 lower directories."""
_NANOSECONDS: Final = 1e9


def image_id(name: str, digest: str) -> str:
    """Return the id of the record that gives `name` to a manifest: names of one manifest are records of their own."""
    return hashlib.sha256(f"{name}@{digest}".encode()).hexdigest()[:24]


def referenced_blobs(image: Image) -> frozenset[str]:
    """Return the digests of all blobs of an image, its manifest and configuration among them."""
    return frozenset({image.digest, image.config_digest, *(layer.digest for layer in image.layers)})


def config_digest_of(manifest: bytes) -> str:
    """Return which configuration a manifest names."""
    return _descriptor(_document(manifest, "manifest"), "config", "the manifest's config")[0]


def build_image(project: str, name: str, manifest: bytes, config: bytes) -> Image:
    """Return the image that `manifest` and its `config` describe, without times."""
    top = _document(manifest, "manifest")
    _check_kind(top)
    config_digest, config_size, _ = _descriptor(top, "config", "the manifest's config")
    settings = _document(config, "configuration")
    layers = _layers(top, settings)
    digest = digest_of(manifest)
    return Image(
        meta=Meta(id=image_id(name, digest), project=project),
        name=name,
        digest=digest,
        platform=_platform(settings),
        layers=layers,
        config=_config(settings),
        size=len(manifest) + config_size + sum(layer.size for layer in layers),
        config_digest=config_digest,
    )


def _check_kind(top: Mapping[str, Any]) -> None:
    kind = top.get("mediaType", media.OCI_MANIFEST)
    if kind in media.INDEXES or "manifests" in top:
        raise InvalidError("this is an index of images for several platforms: tag the manifest of one of them")
    if kind not in media.MANIFESTS or top.get("schemaVersion") != 2:
        raise InvalidError(
            f"a manifest of type {kind!r} (schema {top.get('schemaVersion')!r}) is not taken: "
            f"wanted {media.OCI_MANIFEST} or {media.DOCKER_MANIFEST}"
        )


def _layers(top: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Layer, ...]:
    listed = top.get("layers")
    rootfs = settings.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(listed, list) or not isinstance(diff_ids, list):
        raise InvalidError("the manifest lists no layers, or its configuration no rootfs.diff_ids: it is no image")
    if len(listed) != len(diff_ids):
        raise InvalidError(
            f"the manifest has {len(listed)} layers, its configuration {len(diff_ids)}: they do not belong together"
        )
    if not listed:
        raise InvalidError("the image has no layers: there is nothing to run in it")
    if len(listed) > MAX_LAYERS:
        raise InvalidError(f"the image has {len(listed)} layers; at most {MAX_LAYERS} can be mounted")
    return tuple(_layer(top, number, diff_id) for number, diff_id in enumerate(diff_ids))


def _layer(top: Mapping[str, Any], number: int, diff_id: object) -> Layer:
    where = f"layer {number + 1} of the manifest"
    digest, size, kind = _descriptor(top["layers"], number, where)
    if kind not in media.LAYERS:
        raise InvalidError(f"{where} is of type {kind!r}, which is not taken: wanted a tar, plain, gzip or zstd")
    if not isinstance(diff_id, str) or not is_digest(diff_id):
        raise InvalidError(f"the configuration's rootfs.diff_ids[{number}] is not a sha256 digest")
    return Layer(digest, diff_id, size, kind)


def _descriptor(container: Any, key: str | int, where: str) -> tuple[str, int, str]:
    """Return digest, size and media type of a descriptor (OCI descriptor.md)."""
    found = container.get(key) if isinstance(container, dict) else container[key]
    if not isinstance(found, dict):
        raise InvalidError(f"{where} is missing or no descriptor")
    digest, size, kind = found.get("digest"), found.get("size"), found.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidError(f"{where} has no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidError(f"{where} has no size")
    return digest, size, str(kind)


def _platform(settings: Mapping[str, Any]) -> Platform:
    system, architecture = settings.get("os"), settings.get("architecture")
    if not (_is_text(system) and _is_text(architecture) and system and architecture):
        raise InvalidError("the configuration does not say its os and architecture")
    if system != "linux":
        raise InvalidError(f"the image is for {system}, and only Linux containers can be run")
    return Platform(str(system), str(architecture))


def _config(settings: Mapping[str, Any]) -> ImageConfig:
    config = settings.get("config") or {}
    if not isinstance(config, dict):
        raise InvalidError("the configuration's config is no object")
    return ImageConfig(
        entrypoint=_strings(config, "Entrypoint"),
        command=_strings(config, "Cmd"),
        env=_strings(config, "Env"),
        user=_string(config, "User"),
        working_dir=_string(config, "WorkingDir"),
        stop_signal=_string(config, "StopSignal"),
        healthcheck=_healthcheck(config.get("Healthcheck")),
        labels=_labels(config),
    )


def _strings(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise InvalidError(f"the configuration's {key} is no list of strings")
    return tuple(value)


def _string(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key) or ""
    if not _is_text(value):
        raise InvalidError(f"the configuration's {key} is no string")
    return str(value)


def _is_text(value: object) -> bool:
    """Whether a value is a string that the kernel and protobuf can take: no zero bytes, no halves of characters."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _labels(config: Mapping[str, Any]) -> Mapping[str, str]:
    value = config.get("Labels") or {}
    if not isinstance(value, dict) or not all(map(_is_text, [*value, *value.values()])):
        raise InvalidError("the configuration's Labels are no strings by name")
    return value


def _healthcheck(value: object) -> Healthcheck | None:
    """Return Docker's health check; 0 and missing values mean the defaults. Times there are nanoseconds."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidError("the configuration's Healthcheck is no object")
    test = _strings(value, "Test")
    if not test:
        return None
    default = Healthcheck()

    def seconds(key: str, otherwise: float) -> float:
        given = value.get(key) or 0
        if not isinstance(given, int) or given < 0:
            raise InvalidError(f"the configuration's Healthcheck.{key} is no number of nanoseconds")
        return given / _NANOSECONDS or otherwise

    retries = value.get("Retries") or default.retries
    if not isinstance(retries, int) or retries < 0:
        raise InvalidError("the configuration's Healthcheck.Retries is no number")
    return Healthcheck(
        test=test,
        interval=seconds("Interval", default.interval),
        timeout=seconds("Timeout", default.timeout),
        retries=retries,
        start_period=seconds("StartPeriod", default.start_period),
        start_interval=seconds("StartInterval", default.start_interval),
    )


def _document(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidError(f"the {what} is no JSON document") from None
    if not isinstance(found, dict):
        raise InvalidError(f"the {what} is no JSON object")
    return found
