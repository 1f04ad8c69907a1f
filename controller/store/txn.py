"""Operations as etcd transactions: pure functions from operations to requests, and from answers to verdicts.

A transaction compares all expectations and the fence, and writes in its success branch. Its failure branch reads the
same keys, so that one round trip also says *which* expectation did not hold, as of the very revision it was judged at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from argosy.controller.store.errors import TooLargeError
from argosy.controller.store.keys import Keyspace
from argosy.controller.store.ops import Check, Claim, Delete, Fence, Op, Put, Release
from argosy.controller.store.records import to_bytes
from argosy.core.errors import ArgosyError, ConflictError, ExistsError, LostLeadershipError
from argosy.core.kinds import BY_TYPE
from argosy.proto.etcd import rpc_pb2 as pb

MAX_OPS: Final = 128
"""etcd's --max-txn-ops: of comparisons, and of requests in either branch."""
MAX_BYTES: Final = int(1.5 * 1024 * 1024) - 2048
"""etcd's --max-request-bytes, less what etcd itself adds to the request in its log."""


class Write(Enum):
    """What a prepared operation does to its key."""

    NOTHING = 0
    PUT = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operation in etcd's terms. At most one of `expect` (mod_revision) and `held` (value) is set."""

    op: Op
    key: bytes
    write: Write
    value: bytes = b""
    expect: int | None = None
    held: bytes | None = None

    @property
    def guarded(self) -> bool:
        """Whether it can be applied only once: it writes a key whose present version it compares.

        A comparison of values does not do: the same value may come again.
        """
        return self.write is not Write.NOTHING and self.expect is not None

    @property
    def size(self) -> int:
        """An upper bound of its bytes in the request: the comparison, the write, the read of the failure branch."""
        return 3 * (len(self.key) + 24) + len(self.value) + len(self.held or b"")

    def holds(self, found: pb.KeyValue | None) -> bool:
        """Whether the expectation is met by what is at the key."""
        if self.expect is not None:
            return self.expect == (found.mod_revision if found else 0)
        if self.held is not None:
            return found is not None and found.value == self.held
        return True

    def done(self, found: pb.KeyValue | None) -> bool:
        """Whether what is at the key is what this operation leaves there."""
        match self.write:
            case Write.NOTHING:
                return True
            case Write.PUT:
                return found is not None and found.value == self.value
            case Write.DELETE:
                return found is None


def prepare(op: Op, keys: Keyspace) -> Prepared:
    """Return an operation in etcd's terms."""
    match op:
        case Put(obj, expect):
            key = keys.object(type(obj), obj.meta.project, obj.meta.id)
            return Prepared(op, key, Write.PUT, to_bytes(obj), expect)
        case Delete(kind, project, id, expect):
            return Prepared(op, keys.object(kind, project, id), Write.DELETE, expect=expect)
        case Check(kind, project, id, expect):
            return Prepared(op, keys.object(kind, project, id), Write.NOTHING, expect=expect)
        case Claim(kind, project, name, id):
            return Prepared(op, keys.name(kind, project, name), Write.PUT, id.encode(), expect=0)
        case Release(kind, project, name, id):
            return Prepared(op, keys.name(kind, project, name), Write.DELETE, held=id.encode())


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that are applied all or none; `index` is the caller's."""

    index: int
    parts: tuple[Prepared, ...]
    size: int

    @classmethod
    def of(cls, index: int, ops: Iterable[Op], keys: Keyspace) -> "Group":
        """Prepare a group. ValueError when two of its operations write the same key: that is a bug."""
        parts = tuple(prepare(op, keys) for op in ops)
        written = [p.key for p in parts if p.write is not Write.NOTHING]
        if len(set(written)) != len(written):
            raise ValueError(f"a key is written twice in one group: {sorted(written)}")
        return cls(index, parts, sum(p.size for p in parts))

    def check_fits(self, fence: Fence | None) -> None:
        """Raise TooLargeError when the group does not fit in a transaction of its own."""
        room = MAX_OPS - (fence is not None)
        if len(self.parts) > room:
            raise TooLargeError(
                f"the change has {len(self.parts)} operations, and {room} can be made at once: change fewer objects "
                "at a time"
            )
        if self.size > MAX_BYTES:
            largest = max(self.parts, key=lambda p: p.size)
            raise TooLargeError(
                f"the change has {self.size:,} bytes, and {MAX_BYTES:,} can be written at once; the largest part is "
                f"{_name(largest.op)} with {largest.size:,} bytes: change fewer objects at a time, or make this smaller"
            )


def pack(groups: Sequence[Group], fence: Fence | None) -> tuple[list[list[Group]], list[Group]]:
    """Share groups out over as few transactions as first-fit in order makes.

    Returns the transactions and the groups that must wait for the next round, since they touch a key that
    a group before them writes (or the other way round): transactions of one round may run in any order.
    """
    room = MAX_OPS - (fence is not None)
    packed: list[list[Group]] = []
    later: list[Group] = []
    touched: set[bytes] = set()
    written: set[bytes] = set()
    count = size = 0
    for group in groups:
        keys = {p.key for p in group.parts}
        writes = {p.key for p in group.parts if p.write is not Write.NOTHING}
        clash = not (written.isdisjoint(keys) and touched.isdisjoint(writes))
        touched |= keys
        written |= writes
        if clash:
            later.append(group)
            continue
        if not packed or count + len(group.parts) > room or size + group.size > MAX_BYTES:
            packed.append([])
            count = size = 0
        packed[-1].append(group)
        count += len(group.parts)
        size += group.size
    return packed, later


def request(parts: Sequence[Prepared], fence: Fence | None, *, settling: bool = False) -> pb.TxnRequest:
    """Return the transaction. With `settling` the failure branch reads all keys that are written, with values."""
    txn = pb.TxnRequest()
    if fence is not None:
        _compare(txn, fence.key, pb.Compare.CREATE).create_revision = fence.create_revision
        txn.failure.add().request_range.key = fence.key
    for part in parts:
        compared = part.expect is not None or part.held is not None
        if part.expect is not None:
            _compare(txn, part.key, pb.Compare.MOD).mod_revision = part.expect
        elif part.held is not None:
            _compare(txn, part.key, pb.Compare.VALUE).value = part.held
        if part.write is Write.PUT:
            put = txn.success.add().request_put
            put.key, put.value = part.key, part.value
        elif part.write is Write.DELETE:
            txn.success.add().request_delete_range.key = part.key
        if compared or (settling and part.write is not Write.NOTHING):
            read = txn.failure.add().request_range
            read.key = part.key
            read.keys_only = part.expect is not None and not isinstance(part.op, Claim) and not settling
    return txn


def _compare(txn: pb.TxnRequest, key: bytes, target: "pb.Compare.Target.ValueType") -> pb.Compare:
    compare = txn.compare.add()
    compare.key = key
    compare.target = target
    return compare


def found_in(response: pb.TxnResponse) -> dict[bytes, pb.KeyValue]:
    """Return what the failure branch read, by key."""
    return {kv.key: kv for r in response.responses for kv in r.response_range.kvs}


def lost_fence(fence: Fence | None, found: Mapping[bytes, pb.KeyValue]) -> LostLeadershipError | None:
    """Return the error when the fence did not hold."""
    if fence is None:
        return None
    holder = found.get(fence.key)
    if holder is not None and holder.create_revision == fence.create_revision:
        return None
    now = f"epoch {holder.create_revision} does" if holder is not None else "nobody does"
    return LostLeadershipError(f"this controller (epoch {fence.create_revision}) does not lead any more: {now}")


def conflict(parts: Iterable[Prepared], found: Mapping[bytes, pb.KeyValue]) -> ArgosyError | None:
    """Return the error of what did not hold in a group: ExistsError for a name that is taken, else ConflictError."""
    broken = [(p, found.get(p.key)) for p in parts if not p.holds(found.get(p.key))]
    if not broken:
        return None
    text = "; ".join(_reason(p, kv) for p, kv in broken[:3])
    if len(broken) > 3:
        text += f"; and {len(broken) - 3} more"
    if all(isinstance(p.op, Claim) for p, _ in broken):
        return ExistsError(text)
    return ConflictError(text)


def _reason(part: Prepared, found: pb.KeyValue | None) -> str:
    subject = _name(part.op)
    match part.op:
        case Claim():
            return f"the {subject} is taken by {found.value.decode() if found else 'another'}"
        case Release(id=id):
            return f"the {subject} is not held by {id}"
    if found is None:
        return f"the {subject} does not exist any more"
    if part.expect == 0:
        return f"the {subject} exists already"
    return f"the {subject} changed since it was read (version {found.mod_revision}, not {part.expect})"


def _name(op: Op) -> str:
    match op:
        case Put(obj):
            return f"{BY_TYPE[type(obj)].name} {obj.meta.id}"
        case Delete(kind, _, id) | Check(kind, _, id):
            return f"{BY_TYPE[kind].name} {id}"
        case Claim(kind, _, name) | Release(kind, _, name):
            return f"{BY_TYPE[kind].name} name {name!r}"
