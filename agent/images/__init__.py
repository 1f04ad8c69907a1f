"""Images on a host: layers fetched once, verified, unpacked safely, shared by all containers."""
