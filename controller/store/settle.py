"""Finding out whether a transaction with an unknown outcome was applied.

A transaction is *guarded* when it writes a key whose present version it compares. Sent again, such a transaction can be
applied at most once in all, since its first success changes that version: the second copy then fails its comparison
and reads what is there. So it is sent again, and the answer tells:

- it succeeded: applied, now;
- it failed and every key is as it would leave it, all puts at one revision: the first copy was applied;
- it failed and a guarded key still has the expected version: not applied, neither now nor later;
- it failed and all guarded keys were changed otherwise: somebody wrote in between, and whether that was before us or
  after us cannot be known. The caller gets AmbiguousError and reads again.

A transaction without such a key is never sent again. What remains: an object that the first copy created and that
somebody deleted within these moments is created once more (versions of a key that is absent are all alike).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from argosy.controller.store.txn import Prepared, Write
from argosy.proto.etcd import rpc_pb2 as pb


class Verdict(Enum):
    """What a failed second copy says about the first."""

    APPLIED = 1
    NOT_APPLIED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """The verdict, and for APPLIED the revision of the write (0: it only deleted, the revision is not known)."""

    verdict: Verdict
    revision: int = 0


def can_settle(parts: Sequence[Prepared]) -> bool:
    """Whether a transaction of these operations may be sent again."""
    return any(p.guarded for p in parts)


def settle(parts: Sequence[Prepared], found: Mapping[bytes, pb.KeyValue]) -> Settled:
    """Judge the first copy by what the failed second copy (built with `settling`) read."""
    if any(p.guarded and p.holds(found.get(p.key)) for p in parts):
        return Settled(Verdict.NOT_APPLIED)
    if all(p.done(found.get(p.key)) for p in parts):
        revisions = {found[p.key].mod_revision for p in parts if p.write is Write.PUT}
        if len(revisions) <= 1:
            return Settled(Verdict.APPLIED, max(revisions, default=0))
    return Settled(Verdict.UNKNOWN)
