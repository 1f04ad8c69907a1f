"""Dev clusters for the end-to-end tests: the very thing that `argosy dev up` gives to people.

`cluster` is shared by the tests of a module, which leave it as they found it; `make_cluster` makes one for a test.
"""

import os

import pytest

from tests.e2e.dev_cluster import DevCluster
from tests.rootfs import busybox_rootfs_tar


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory):
    """A root file system of busybox, as a tar."""
    return busybox_rootfs_tar(tmp_path_factory.mktemp("image") / "busybox.tar")


@pytest.fixture(scope="module")
def cluster(request, image_tar):
    """Three hosts with the image `busybox:1`, for the tests of one module."""
    name = f"t{os.getpid() % 100_000}-{request.module.__name__.rpartition('.')[2][5:13].strip('_').replace('_', '-')}"
    with DevCluster(name, nodes=3) as cluster:
        cluster.argosy("image", "import", "busybox:1", str(image_tar))
        yield cluster


@pytest.fixture
def make_cluster(request, image_tar):
    """A function that makes clusters (name, nodes, controllers) which end with the test."""
    made = []

    def make(nodes=3, controllers=1):
        made.append(DevCluster(f"t{os.getpid() % 100_000}-x{len(made)}", nodes=nodes, controllers=controllers))
        made[-1].__enter__()
        made[-1].argosy("image", "import", "busybox:1", str(image_tar))
        return made[-1]

    yield make
    for cluster in made:
        cluster.__exit__(None, None, None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """When a test fails, or what it needs, show the ends of the logs of the clusters that are up with it."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections += [(f"logs of {cluster.name}", cluster.log_tails()) for cluster in DevCluster.up]
