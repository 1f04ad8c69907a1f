"""A whole cluster on one machine, for people and for tests: `argosy dev up|down|status`.

Each host is a network, mount and host-name namespace joined to a bridge, with its own cgroup subtree and a real agent.
The bridge, etcd and the controllers have a network namespace of their own ("switch"), so nothing of the machine's own
network is touched. Everything is a process of one cgroup subtree or lives in a namespace that such a process holds:
ending the processes of that subtree ends the cluster, whatever state it is in.
"""
