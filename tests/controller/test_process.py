"""The controller as a process: what it says when it cannot run, and that it stops when it is told to."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from argosy.controller.main import _last_words
from argosy.core.errors import InvalidError
from tests.store.etcd_server import free_port


def controller(tmp_path, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "argosy.controller", "--data-dir", str(tmp_path / "data"), *options]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], timeout_s: float = 20.0) -> str:
    try:
        return process.communicate(timeout=timeout_s)[0]
    finally:
        process.kill()


def test_it_stops_when_told_to_while_etcd_is_away(tmp_path):
    process = controller(tmp_path, "--etcd", f"127.0.0.1:{free_port()}", "--listen", f"unix://{tmp_path}/c.sock")
    for line in process.stdout:
        if "cannot list" in line:
            break
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    said = ended(process)
    assert process.returncode == 0, said
    assert time.monotonic() - begun < 5
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_a_port_that_is_taken_is_said(tmp_path, etcd, kind):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = controller(tmp_path, "--etcd", etcd.endpoint, "--cluster", "udp", "--listen", address)
        said = ended(process)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert f"--listen {address}" in said


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "localhost:7070"])
def test_an_address_that_is_none_is_said(tmp_path, address):
    process = controller(tmp_path, "--listen", address)
    said = ended(process)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert address in said


def test_an_error_deep_in_task_groups_is_told_in_a_sentence():
    group = ExceptionGroup("a", [ExceptionGroup("b", [InvalidError("etcd holds a newer schema")])])
    assert _last_words(group) == "etcd holds a newer schema"
    bug = ExceptionGroup("a", [KeyError("x")])
    with pytest.raises(ExceptionGroup):
        _last_words(bug)
