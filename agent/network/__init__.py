"""The node's part of the overlay: one network namespace per network, containers attached to it, names answered in it.

`plane.NetworkPlane` is the way in; the decisions are pure and live in `agent/logic/network_*.py`. See docs/network.md.
"""
