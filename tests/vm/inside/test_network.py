"""What the overlay's tests are run with in here."""

from pathlib import Path

from argosy.agent.network.mesh import BY_KERNEL
from tests.kernel.network.network_world import world


def test_tunnels_are_the_kernels(tmp_path: Path) -> None:
    """Else the mesh's tests would silently be about wireguard-go, as where the kernel has no WireGuard."""
    with world(tmp_path) as wire:
        assert wire.add_host(dns=False).plane.tunnels_by == (BY_KERNEL, "")
