"""Output of tasks: read from the log files that the launcher writes, sent through tunnels that the agent opens."""
