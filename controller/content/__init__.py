"""Content on a controller's disk, by digest, and what images are made of."""
