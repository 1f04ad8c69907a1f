"""Control loops of the leader: each reads the cache, lets controller/logic decide, commits under the fence.

The loops meet only through the store. Each is level-triggered: a change says where to look, never what to do.
"""
