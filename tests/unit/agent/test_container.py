"""Spec over image: what a container gets."""

import pytest

from argosy.agent.logic.container import argv_of, environment, etc_files, resolv_conf, stop_signal_of
from argosy.core.image import ImageConfig
from argosy.core.service import ContainerSpec, DnsConfig

IMAGE = ImageConfig(entrypoint=("/entry",), command=("serve",), env=("PATH=/bin", "MODE=image"), stop_signal="SIGQUIT")


@pytest.mark.parametrize(
    ("spec", "argv"),
    [
        (ContainerSpec(), ("/entry", "serve")),
        (ContainerSpec(command=("other",), command_set=True), ("/entry", "other")),
        (ContainerSpec(entrypoint=("/mine",), entrypoint_set=True), ("/mine",)),
        (ContainerSpec(entrypoint=(), entrypoint_set=True, command=("sh",), command_set=True), ("sh",)),
        (ContainerSpec(command=(), command_set=True), ("/entry",)),
    ],
)
def test_entrypoint_and_command(spec, argv):
    assert argv_of(spec, IMAGE) == argv


def test_environment():
    assert environment(("MODE=mine", "NEW=1", "PATH"), IMAGE.env) == ("MODE=mine", "NEW=1")


def test_hosts_and_hostname():
    files = etc_files(ContainerSpec(extra_hosts=("db:10.0.0.9", "v6=[::9]")), [0x0A400021], "web-1")
    lines = files.hosts.splitlines()
    assert "10.64.0.33\tweb-1" in lines
    assert "10.0.0.9\tdb" in lines
    assert "::9\tv6" in lines
    assert files.hostname == "web-1\n"


def test_resolv_conf():
    assert resolv_conf(DnsConfig(), True) == "nameserver 169.254.1.1\noptions ndots:0\n"
    mine = DnsConfig(nameservers=("9.9.9.9",), search=("a.example",), options=("ndots:2",))
    assert resolv_conf(mine, True) == ("nameserver 169.254.1.1\nsearch a.example\noptions ndots:2\n")
    assert resolv_conf(mine, False).startswith("nameserver 9.9.9.9\n")


def test_stop_signal():
    assert stop_signal_of(ContainerSpec(stop_signal="SIGUSR1"), IMAGE) == 10
    assert stop_signal_of(ContainerSpec(), IMAGE) == 3
    assert stop_signal_of(None, None) == 15
