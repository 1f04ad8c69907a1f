"""Fixtures: two hosts on a wire."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ingress_world import Published
from network_world import Host, World, world


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[World]:
    """A wire without hosts."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def pair(wire: World) -> tuple[Host, Host]:
    """Two hosts that do not answer names."""
    return wire.add_host(dns=False), wire.add_host(dns=False)


@pytest.fixture
def web(wire: World, pair: tuple[Host, Host]) -> Published:
    """Three hosts, and nothing yet."""
    wire.add_host(dns=False)
    return Published(wire)
