"""The launcher: parent of all containers of a host. Standard library only, one thread, a small heap.

The agent executes this package as a program of its own (`python -I -S .../agent/launcher`) and talks to it over a
unix socket (`wire`). Nothing in here may import another part of Argosy: the process must stay small, since its
heap is copied by every clone, and it must start without site-packages.
"""
