"""What this controller knows of its cluster beside the store: who leads, and under which epoch."""

import asyncio
from dataclasses import dataclass, field

from argosy.controller.store import LeaderRecord


@dataclass(slots=True)
class ClusterView:
    """Changed by the election's follower (controller/main.py), read by the API."""

    cluster: str
    version: str
    own_name: str
    leader_name: str = ""
    leader_address: str = ""
    epoch: int = 0
    _led: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def leads(self) -> bool:
        """Whether this controller is the leader, as far as it knows."""
        return self.leader_name == self.own_name

    def follow(self, leader: LeaderRecord | None) -> None:
        """Take note of who leads; None: nobody does."""
        self.leader_name = leader.id if leader else ""
        self.leader_address = leader.address if leader else ""
        self.epoch = leader.epoch if leader else 0
        if leader:
            self._led.set()
        else:
            self._led.clear()

    async def led(self) -> None:
        """Wait until somebody leads."""
        await self._led.wait()
