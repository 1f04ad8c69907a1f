"""What can go wrong between the controller and etcd, beside the errors of the whole project.

TransientError
├── ExhaustedError ── StoreFullError           etcd's database is full; it reads on, and takes no writes
├── StoreUnavailableError   etcd did not answer in time; nothing was written
├── AmbiguousError          a write may or may not have been applied
└── CompactedError          the wanted revision is compacted away (or lies ahead): list again
RejectedError
├── InvalidError ── TooLargeError              more than fits in one transaction
└── PreconditionError
    ├── LeaseGoneError                         the lease expired or was revoked
    ├── NewerSchemaError                       written by a newer controller
    ├── VersionTooOldError                     too old to resume from: list again
    └── StoreRefusedError                      etcd refuses: credentials, a broken request
"""

from argosy.core.errors import ExhaustedError, InvalidError, PreconditionError, TransientError


class StoreFullError(ExhaustedError):
    """etcd's database is full: nothing was written, and nothing will be until there is room (maintenance.keep_room)."""


class StoreUnavailableError(TransientError):
    """No etcd endpoint answered in time. If this was a write it was surely not applied."""


class AmbiguousError(TransientError):
    """A write was sent and its outcome is unknown: read what is there before deciding again."""


class CompactedError(TransientError):
    """The revision is not there: compacted away, or (after a restore of etcd) not reached yet."""


class TooLargeError(InvalidError):
    """A group of operations that must be atomic does not fit in one transaction."""


class UnreadableError(PreconditionError):
    """A stored object is damaged, or not what this program takes it for."""


class NewerSchemaError(UnreadableError):
    """A stored object has a newer schema than this program knows; to write it back would lose data."""


class VersionTooOldError(PreconditionError):
    """A watch cannot resume from this version: list, then watch from there."""


class LeaseGoneError(PreconditionError):
    """There is no such lease (any more)."""


class StoreRefusedError(PreconditionError):
    """etcd answered, and refused for a reason that retrying does not cure by itself."""
