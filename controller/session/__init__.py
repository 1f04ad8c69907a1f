"""Sessions of agents: what the leader assigns to nodes, what they report, and the tunnels that they open."""
