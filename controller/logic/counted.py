"""How many of how many, in words that read well for one as for thousands: they stand in what people are told."""


def of_all(count: int, total: int, one: str, many: str) -> str:
    """Return "the only replica", "both canaries", "all 5 replicas" or "2 of 5 replicas"."""
    if total == 1:
        return f"the only {one}"
    if count == total:
        return f"both {many}" if total == 2 else f"all {total} {many}"
    return f"{count} of {total} {many}"
