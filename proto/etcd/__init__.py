"""Generated modules of the parts of etcd's v3 API that the store uses."""
