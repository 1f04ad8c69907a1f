"""The controller: API, control loops of the leader, agents' sessions, image content. See docs/architecture.md."""
