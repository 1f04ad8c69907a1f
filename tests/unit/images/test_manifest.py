"""Manifests and configurations become images, or say what is wrong with them."""

import json

import pytest

from argosy.controller.content.manifest import build_image, config_digest_of, image_id, referenced_blobs
from argosy.core.errors import InvalidError
from argosy.core.image import ImageConfig
from argosy.core.oci.digests import digest_of
from argosy.core.service import Healthcheck

LAYER, CONFIG, DIFF = ("sha256:" + c * 64 for c in "abc")
GOOD = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": CONFIG, "size": 100},
    "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": LAYER, "size": 1000}],
}
SETTINGS = {"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": [DIFF]}}


def build(manifest=GOOD, settings=SETTINGS):
    return build_image("p", "web:1", json.dumps(manifest).encode(), json.dumps(settings).encode())


def test_docker_and_oci_manifests_mean_the_same():
    docker = build()
    layer = {**GOOD["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}
    oci = build({**GOOD, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer]})
    assert docker.layers[0].digest == oci.layers[0].digest == LAYER
    assert docker.layers[0].diff_id == DIFF
    assert (docker.platform.os, docker.platform.architecture) == ("linux", "arm64")
    manifest = json.dumps(GOOD).encode()
    assert docker.digest == digest_of(manifest)
    assert docker.size == len(manifest) + 1100
    assert config_digest_of(manifest) == CONFIG
    assert referenced_blobs(docker) == {docker.digest, CONFIG, LAYER}
    assert docker.meta.id == image_id("web:1", docker.digest) != image_id("web:2", docker.digest)
    assert len(docker.meta.id) == 24


def test_the_whole_configuration():
    config = {
        "Entrypoint": ["/e"], "Cmd": ["c", ""], "Env": ["A=1"], "User": "1:2", "WorkingDir": "/w",
        "StopSignal": "SIGINT", "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5_000_000_000, "Timeout": 0, "Retries": 2},
    }  # fmt: skip
    assert build(settings={**SETTINGS, "config": config}).config == ImageConfig(
        ("/e",), ("c", ""), ("A=1",), "1:2", "/w", "SIGINT",
        Healthcheck(("CMD", "x"), interval=5.0, retries=2), {"a": "b"},
    )  # fmt: skip
    nothing = {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None, "Healthcheck": {}, "User": None}
    assert build(settings={**SETTINGS, "config": nothing}).config == ImageConfig()
    assert build(settings={**SETTINGS, "config": None}).config == ImageConfig()


@pytest.mark.parametrize(
    ("manifest", "settings", "says"),
    [
        ({**GOOD, "mediaType": "application/vnd.oci.image.index.v1+json"}, SETTINGS, "index of images"),
        ({"schemaVersion": 2, "manifests": []}, SETTINGS, "index of images"),
        ({**GOOD, "schemaVersion": 1}, SETTINGS, "schema 1"),
        ({**GOOD, "layers": []}, SETTINGS, "do not belong together"),
        ({**GOOD, "layers": []}, {**SETTINGS, "rootfs": {"diff_ids": []}}, "no layers"),
        ({**GOOD, "layers": "x"}, SETTINGS, "lists no layers"),
        ({**GOOD, "layers": [5]}, SETTINGS, "no descriptor"),
        ({**GOOD, "layers": [{**GOOD["layers"][0], "mediaType": "x/y"}]}, SETTINGS, "type 'x/y'"),
        ({**GOOD, "layers": [{**GOOD["layers"][0], "digest": "md5:1"}]}, SETTINGS, "no sha256 digest"),
        ({**GOOD, "layers": [{**GOOD["layers"][0], "size": -1}]}, SETTINGS, "no size"),
        (GOOD, {**SETTINGS, "rootfs": {"diff_ids": ["x"]}}, "diff_ids.0. is not"),
        (GOOD, {**SETTINGS, "os": "windows"}, "only Linux"),
        (GOOD, {**SETTINGS, "os": ""}, "does not say its os"),
        (GOOD, {**SETTINGS, "config": {"Cmd": "sh"}}, "Cmd is no list"),
        (GOOD, {**SETTINGS, "config": {"Env": ["A=\0"]}}, "Env is no list"),
        (GOOD, {**SETTINGS, "config": {"User": "\ud800"}}, "User is no string"),
        (GOOD, {**SETTINGS, "config": {"Labels": {"a": 1}}}, "Labels"),
        (GOOD, {**SETTINGS, "config": {"Healthcheck": {"Test": ["NONE"], "Interval": "5s"}}}, "nanoseconds"),
        ([], SETTINGS, "no JSON object"),
    ],
)
def test_what_is_refused(manifest, settings, says):
    with pytest.raises(InvalidError, match=says):
        build(manifest, settings)


def test_what_is_no_json_is_refused():
    for data in (b"", b"{", b"[" * 100_000):
        with pytest.raises(InvalidError, match="no JSON document"):
            build_image("p", "web:1", data, b"{}")
