"""The builder of OCI configs, as tables; and that the launcher accepts what it builds."""

from dataclasses import replace
from typing import Any

import pytest

from argosy.agent.launcher import spec as launch_spec
from argosy.agent.launcher import syscalls as sc
from argosy.agent.launcher.capability import mask_of
from argosy.agent.runtime.errors import RuntimeRejected
from argosy.agent.runtime.oci_config import (
    DEFAULT_CAPABILITIES,
    DEFAULT_PATH,
    Bind,
    ContainerSpec,
    Limits,
    Tmpfs,
    Ulimit,
    build,
    capabilities,
    resources,
)
from argosy.agent.runtime.seccomp import compile_profile
from argosy.agent.runtime.seccomp_profile import default_profile

SPEC = ContainerSpec(argv=("/bin/app",), id_base=131_072)
DEFAULT = {f"CAP_{name}" for name in DEFAULT_CAPABILITIES}


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT),
        (("NET_ADMIN",), (), DEFAULT | {"CAP_NET_ADMIN"}),
        (("cap_net_admin",), ("CHOWN",), DEFAULT - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}),
        ((), ("ALL",), set()),
        (("KILL",), ("ALL",), {"CAP_KILL"}),
        (("NET_RAW",), ("NET_RAW",), DEFAULT),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    assert capabilities(add, drop) == expected


def test_all_capabilities_but_one() -> None:
    kept = capabilities(("ALL",), ("SYS_ADMIN",))
    assert "CAP_SYS_ADMIN" not in kept
    assert len(kept) == 40


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(RuntimeRejected, match="FLY"):
        capabilities(("FLY",), ())


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), {"pids": {"limit": 4096}}),
        (Limits(cpus=1.5, pids=9), {"pids": {"limit": 9}, "cpu": {"quota": 150_000, "period": 100_000}}),
        (Limits(cpu_shares=2, cpuset="0-1"), {"pids": {"limit": 4096}, "cpu": {"shares": 2, "cpus": "0-1"}}),
        (
            Limits(memory_bytes=100, memory_high_bytes=90, memory_swap_bytes=150),
            {"pids": {"limit": 4096}, "memory": {"limit": 100, "swap": 150}, "unified": {"memory.high": "90"}},
        ),
    ],
)
def test_resources(limits: Limits, expected: dict[str, Any]) -> None:
    assert resources(limits) == expected


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        ({}, "args", ["/bin/app"]),
        ({"init": "/usr/bin/tini-static"}, "args", ["/run/argosy-init", "--", "/bin/app"]),
        ({}, "env", [DEFAULT_PATH]),
        ({"env": ("PATH=/x", "A=1"), "hostname": "h"}, "env", ["PATH=/x", "A=1", "HOSTNAME=h"]),
        ({"user": "ann:staff"}, "user", {"uid": 0, "gid": 0, "username": "ann:staff", "additionalGids": []}),
        ({"ulimits": (Ulimit("nofile", 1, 2),)}, "rlimits", [{"type": "nofile", "soft": 1, "hard": 2}]),
        ({"cwd": "/srv"}, "cwd", "/srv"),
        ({}, "noNewPrivileges", True),
    ],
)
def test_process(change: dict[str, Any], key: str, expected: object) -> None:
    assert build(replace(SPEC, **change))["process"][key] == expected


def mounts(**change: Any) -> dict[str, dict[str, Any]]:
    return {entry["destination"]: entry for entry in build(replace(SPEC, **change))["mounts"]}


def test_mounts() -> None:
    made = mounts(
        binds=(Bind("/v/deep", "/data/deep"), Bind("/v", "/data", read_only=True, idmap=False)),
        tmpfs=(Tmpfs("/scratch", size_bytes=4096),),
        hosts_path="/h",
    )
    targets = list(made)
    assert targets.index("/data") < targets.index("/data/deep")
    assert targets.index("/dev") < targets.index("/dev/shm")
    assert made["/data"]["options"] == ["rbind", "nosuid", "nodev", "ro"]
    assert made["/data/deep"]["options"] == ["rbind", "nosuid", "nodev", "idmap"]
    assert "size=4096" in made["/scratch"]["options"]
    assert made["/etc/hosts"]["source"] == "/h"
    assert "/etc/resolv.conf" not in made


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"argv": ()}, "no command"), ({"id_base": 1000}, "id range at 1000")],
)
def test_impossible_specs(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RuntimeRejected, match=reason):
        build(replace(SPEC, **change))


def test_the_host_network_keeps_its_own_settings() -> None:
    config = build(replace(SPEC, host_network=True))
    assert {"type": "network"} not in config["linux"]["namespaces"]
    assert config["linux"]["sysctl"] == {}


def test_the_launcher_reads_what_is_built() -> None:
    spec = launch_spec.parse(build(replace(SPEC, hostname="h", read_only=True, ulimits=(Ulimit("core", -1, -1),))))
    assert spec.uid_map == b"0 131072 65536\n"
    assert spec.root_uid == 131_072
    assert spec.read_only
    assert spec.own_network
    assert spec.process.capabilities.bounding == mask_of(DEFAULT_CAPABILITIES)
    assert spec.process.rlimits[0].hard == launch_spec.UNLIMITED
    assert not spec.clone_flags & sc.CLONE_NEWCGROUP or spec.clone_flags & sc.CLONE_NEWUSER


def test_seccomp_filters_differ_by_capability() -> None:
    plain, admin = (compile_profile(default_profile(caps)) for caps in ((), ("CAP_SYS_ADMIN",)))
    assert len(plain) % 8 == 0
    assert plain != admin
    with pytest.raises(RuntimeRejected, match="SCMP_ACT_TRACE"):
        compile_profile({"defaultAction": "SCMP_ACT_TRACE"})
