"""A real application on three hosts: nginx, three replicas of a Python program, and redis, all from Debian's packages.

Somebody visits it all the time, through nginx. Whatever is done meanwhile, every visit is answered, but for those that
meet a program that was killed before the hosts know of it.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.container import Container
from tests.e2e.dev_cluster import wait_until
from tests.e2e.wire import connect

pytestmark = pytest.mark.timeout(900)
"""The first time, packages are fetched and unpacked."""
HERE = Path(__file__).parent
IMAGES = HERE / "images"
CACHE = HERE.parents[1] / ".cache" / "images"


class Visitor:
    """Visits the application over and over from a host's container; keeps the answers, and what failed."""

    def __init__(self, namespace, address):
        self.answers = []
        self.failures = []
        self.forgiven_until = 0.0
        self._where = namespace, (address, 80)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visitor", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(visit(*self._where))
            except (OSError, ValueError) as error:
                self.failures.append((time.time(), str(error)))

    def since(self, count):
        """Return the answers from number `count` on."""
        return self.answers[count:]


def visit(namespace, address):
    """Return the application's answer to one request; OSError or ValueError when it is none."""
    sock = connect(namespace, address, timeout=10)
    if isinstance(sock, OSError):
        raise sock
    with sock:
        sock.sendall(b"GET / HTTP/1.0\r\nHost: app\r\n\r\n")
        head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode()
    if " 200 " not in f"{status} ":
        raise ValueError(f"{status}: {body.decode(errors='replace').strip()}")
    return json.loads(body)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The application's root file system as a tar: Debian's packages from the cache, and our files of today."""
    key = hashlib.sha256((IMAGES / "rootfs.sh").read_bytes()).hexdigest()[:16]
    base = CACHE / f"web-{key}.tar"
    if not base.exists():
        make_rootfs(base)
    path = tmp_path_factory.mktemp("web") / "web.tar"
    shutil.copyfile(base, path)
    with tarfile.open(path, "a") as archive:
        for name in ("app.py", "nginx.conf"):
            archive.add(IMAGES / name, f"./srv/{name}")
    return path


def make_rootfs(path):
    """Have the root file system made; when the test is stopped meanwhile, nothing of the making stays."""
    making = subprocess.Popen([IMAGES / "rootfs.sh", path], start_new_session=True)
    try:
        assert making.wait() == 0, "rootfs.sh says above what is wrong"
    finally:
        if making.poll() is None:
            os.killpg(making.pid, signal.SIGTERM)
            making.wait(60)


@pytest.fixture(scope="module")
def visitor(cluster, image, tmp_path_factory):
    """Deploy version 1, and visit it from node3 while the tests of this module go on."""
    for name in ("web:1", "web:2"):
        cluster.argosy("image", "import", "--env", f"IMAGE={name}", name, str(image))
    cluster.environment["VERSION"] = "1"
    work = tmp_path_factory.mktemp("compose")
    cluster.deploy("shop", (HERE / "compose" / "app.yaml").read_text(), work)
    (work / "client.yaml").write_text(CLIENT)
    cluster.argosy("deploy", "-c", str(work / "client.yaml"), "client")
    (client,) = cluster.running("client_visitor")
    (front,) = cluster.running("shop_front")
    with Visitor(f"/proc/{client['pid']}/ns/net", front["addresses"][0]) as visitor:
        yield visitor


CLIENT = """
services:
  visitor:
    image: busybox:1
    init: true
    command: sleep 100000
    networks: [shop]
    deploy:
      placement: {constraints: [node.hostname == node3]}
networks:
  shop: {external: true, name: shop_outer}
"""


@pytest.fixture(autouse=True)
def _every_visit_is_answered(visitor):
    failed, answered = len(visitor.failures), len(visitor.answers)
    yield
    assert [f for f in visitor.failures[failed:] if f[0] >= visitor.forgiven_until] == []
    visits = [answer["visits"] for answer in visitor.since(answered)]
    assert visits == sorted(set(visits)), "redis counts each visit"


def hosts(answers):
    """Return who answered: "2.node3" is slot 2 on node3."""
    return {answer["host"] for answer in answers}


def names(tasks):
    """Return what the tasks of `app` call themselves."""
    return {f"{task['slot']}.{task['node']}" for task in tasks}


def wait_answers(visitor, condition, what, timeout=30):
    """Wait until `condition` holds for the answers from now on."""
    count = len(visitor.answers)
    wait_until(
        lambda: condition(visitor.since(count)),
        timeout,
        lambda: f"{what}: {hosts(visitor.since(count))}, failed: {visitor.failures[-3:]}",
    )


def wait_who_answers(cluster, visitor, count):
    """Wait until the answers of a while come from all `count` tasks of `app`, and from no others; return the tasks."""
    tasks = cluster.wait_running("shop_app", count)

    def all_and_only_they():
        answers = visitor.answers[-20 * count :]
        return len(answers) == 20 * count and hosts(answers) == names(tasks)

    wait_until(all_and_only_they, 30, lambda: f"answers from {names(tasks)}: {hosts(visitor.answers[-20 * count :])}")
    return tasks


def test_nginx_passes_visits_to_all_backends_on_all_hosts_by_name(cluster, visitor):
    tasks = wait_who_answers(cluster, visitor, 3)
    assert {task["node"] for task in tasks} == {"node1", "node2", "node3"}


def test_the_programs_are_debian_s(cluster, visitor):
    (front,) = (Container(cluster, task) for task in cluster.running("shop_front"))
    (store,) = (Container(cluster, task) for task in cluster.running("shop_store"))
    assert front.arguments()[0].startswith("nginx: master process")
    assert store.arguments()[0].startswith("redis-server")
    assert front.path("/etc/debian_version").exists()
    assert "PONG" in store.inside("/usr/bin/redis-cli", "PING")


def test_scaled_up_and_down(cluster, visitor):
    cluster.argosy("scale", "shop_app=6")
    wait_who_answers(cluster, visitor, 6)
    cluster.argosy("scale", "shop_app=3")
    wait_who_answers(cluster, visitor, 3)


def test_rolled_to_a_new_version(cluster, visitor, tmp_path):
    cluster.environment["VERSION"] = "2"
    cluster.deploy("shop", (HERE / "compose" / "app.yaml").read_text(), tmp_path)
    wait_answers(visitor, lambda answers: {a["version"] for a in answers[-50:]} == {"2"}, "version 2 answers")
    for task in wait_who_answers(cluster, visitor, 3):
        assert Container(cluster, task).environment()["IMAGE"] == "web:2"


def test_a_killed_backend_is_replaced(cluster, visitor):
    victim = cluster.running("shop_app")[0]
    os.kill(Container(cluster, victim).program, signal.SIGKILL)
    wait_until(lambda: victim["id"] not in {t["id"] for t in cluster.running("shop_app")}, 10, "it is gone")
    # Until every host has been told, connections are still given to a program that is no more.
    visitor.forgiven_until = time.time() + 1
    cluster.wait_running("shop_app", 3)
    wait_who_answers(cluster, visitor, 3)
