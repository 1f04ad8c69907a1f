"""The domain: pure types and rules that controller, agent and CLI share. No I/O, clock or logging in here."""
