"""What this machine can do: bounds on processor time are stated for an ordinary one, and an emulated one is slower."""

import time


def machine_slowness() -> float:
    """Return how many times slower this machine is than one that does a piece of work in 20 ms; 1 if it is faster."""
    return max(1.0, min(_work() for _ in range(5)) / 0.02)


def _work() -> float:
    began = time.process_time()
    for number in range(200_000):
        str(number)
    return time.process_time() - began
