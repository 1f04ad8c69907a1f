"""argosy-dns: answers names to the containers of a host, in every network's namespace at 169.254.1.1.

A process of its own, of the standard library only, so that names are answered while the agent is away or upgraded. Its
sockets are opened by the agent inside the networks' namespaces and handed over; the agent holds them too, so that
queries wait in the kernel while this process restarts.
"""
