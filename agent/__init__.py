"""The agent of a host: session, task owners, runtime, network, images. See docs/architecture.md."""
