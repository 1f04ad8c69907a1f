"""Reading OCI configs: what is refused, and with which words. Pure."""

import copy
from typing import Any

import pytest

from argosy.agent.launcher import spec
from argosy.agent.launcher.errors import LaunchError
from argosy.agent.launcher.rootfs import check_layer_name, overlay_options
from argosy.agent.runtime.oci_config import ContainerSpec, build

CONFIG = build(ContainerSpec(argv=("/bin/app",), id_base=131_072))


def changed(path: str, value: object) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(CONFIG)
    *parents, key = path.split(".")
    target = config
    for parent in parents:
        target = target[parent]
    target[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("process.args", [], "process.args is empty"),
        ("process.args", ["a\0b"], "NUL byte"),
        ("process.cwd", "relative", "must be an absolute path"),
        ("process.capabilities", {"bounding": ["CAP_FLY"]}, "'FLY' is missing or unknown"),
        ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "'X' is missing or unknown"),
        ("hooks", {"prestart": [{}]}, "hooks is not supported"),
        ("linux.devices", [{"path": "/dev/x"}], "bind the device"),
        ("linux.namespaces", [{"type": "pid"}, {"type": "mount"}], "new user namespace"),
        ("linux.namespaces", [{"type": "user", "path": "/x"}], "joining an existing user namespace"),
        ("linux.namespaces", [{"type": "moon"}], "'moon' is missing or unknown"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "not to the host's id 0"),
        ("linux.uidMappings", [], "must map the container's id 0"),
        ("linux.sysctl", {"kernel.panic": "1"}, "belongs to the whole host"),
        ("linux.sysctl", {"net/../../x": "1"}, "write the name with dots"),
        ("mounts", [{"destination": "x", "type": "tmpfs"}], "must be an absolute path"),
        ("mounts", [{"destination": "/x", "type": "ext4"}], "type 'ext4' is not supported"),
        ("mounts", [{"destination": "/x", "source": "/y", "options": ["bind", "zoom"]}], "unknown option 'zoom'"),
        ("process", None, "config.json"),
    ],
)
def test_what_is_refused(path: str, value: object, reason: str) -> None:
    with pytest.raises(LaunchError, match=reason) as caught:
        spec.parse(changed(path, value))
    assert caught.value.kind == "rejected"


def test_net_sysctls_need_an_own_network() -> None:
    config = changed("linux.namespaces", [{"type": name} for name in ("pid", "mount", "user")])
    config["linux"]["sysctl"] = {"net.core.somaxconn": "1"}
    config["hostname"] = ""
    with pytest.raises(LaunchError, match="network namespace of the container's own"):
        spec.parse(config)


def test_overlay_options() -> None:
    tail = ",upperdir=u/upper,workdir=u/work,userxattr,volatile"
    assert overlay_options(("base", "top")) == (f"lowerdir=l/top:l/base{tail}", ())
    assert overlay_options(()) == ("", ())
    options, links = overlay_options([f"{'x' * 100}{number}" for number in range(100)])
    assert options.startswith("lowerdir=u/0:u/1:")
    assert len(options) < 4096
    assert links[0] == f"../l/{'x' * 100}99"


@pytest.mark.parametrize("name", ["", "/abs", "a/../b", "a:b", "a,b", "a\\b"])
def test_layer_names_that_would_escape(name: str) -> None:
    with pytest.raises(LaunchError, match="must be a plain path"):
        check_layer_name(name)
