"""Envelope encryption of what secrets hold, under keys that only the controllers have."""
