"""The OCI image format, as far as the CLI (which reads archives) and the agent (which unpacks layers) share it."""
