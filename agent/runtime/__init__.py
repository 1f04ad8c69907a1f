"""The agent's container runtime: an OCI config and layers in, containers and their exits out.

`interface` says what a runtime is, `native` is ours (over the launcher process), `oci_config` builds configs.
"""
