"""What a request changes in the store: pure functions from a snapshot to operations."""
