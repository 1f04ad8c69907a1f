"""What this controller knows of its cluster beside the store: who leads, and under which epoch."""

from dataclasses import dataclass


@dataclass(slots=True)
class ClusterView:
    """Changed by the election's follower (controller/main.py), read by the API."""

    cluster: str
    version: str
    own_name: str
    leader_name: str = ""
    leader_address: str = ""
    epoch: int = 0

    @property
    def leads(self) -> bool:
        """Whether this controller is the leader, as far as it knows."""
        return self.leader_name == self.own_name
