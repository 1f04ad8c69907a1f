"""What all containers of one launcher share: directories, cgroups, the stage, the copying pipe, what is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import rundir
from .cgroup import CgroupHost
from .cgroup_host import find_host
from .credentials import known_capabilities
from .kept import Kept
from .logs import Scratch
from .stage import Stage


@dataclass(frozen=True, slots=True)
class Host:
    """Made once at the launcher's start."""

    run_dir: str
    state_dir: str
    cgroup_parent: str
    cgroups: CgroupHost
    stage: Stage
    scratch: Scratch
    last_capability: int
    boot_id: str
    kept: Kept

    def container_dir(self, container_id: str) -> str:
        """Return where a container's record and pipes are."""
        return f"{self.run_dir}/containers/{container_id}"

    def scratch_dir(self, container_id: str) -> str:
        """Return where a container's writable layer is."""
        return f"{self.state_dir}/{container_id}"

    def known_ids(self) -> list[str]:
        """Return the ids of all containers on disk."""
        return sorted(os.listdir(f"{self.run_dir}/containers"))


def prepare(run_dir: str, state_dir: str, cgroup_parent: str) -> Host:
    """Make the directories and groups, and enter the launcher's private mount namespaces."""
    for directory in (f"{run_dir}/containers", f"{run_dir}/stage", state_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    cgroups = find_host(cgroup_parent)
    cgroups.prepare()
    return Host(
        run_dir=run_dir,
        state_dir=state_dir,
        cgroup_parent=cgroup_parent,
        cgroups=cgroups,
        stage=Stage(f"{run_dir}/stage"),
        scratch=Scratch(),
        last_capability=known_capabilities(),
        boot_id=rundir.boot_id(),
        kept=Kept(),
    )
