"""etcd as its users see it, in memory: revisions, transactions, leases, history and its compaction.

Answers to requests are right; how late, how often or whether they arrive is the channel's matter (etcd_channel.py).
Reads are always of the newest state, or of a revision in the past that is not compacted away.
"""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from argosy.proto.etcd import rpc_pb2 as pb
from tests.sim.virtual_time import VirtualLoop


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's value as of a revision."""

    value: bytes
    created: int
    modified: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Changed:
    """One key's change in one revision; `new` None: it was deleted."""

    key: bytes
    old: Stored | None
    new: Stored | None


@dataclass(frozen=True, slots=True)
class Revision:
    """All changes of one revision, and as protobuf events, which every watch shares."""

    number: int
    changes: tuple[Changed, ...]
    events: tuple[pb.Event, ...]


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    ends_at: float
    keys: set[bytes]


class Refused(Exception):
    """etcd's answer is an error."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Etcd:
    """The whole cluster of it: one truth, no members."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.revision = 1
        self.compacted = 0
        self.keys: dict[bytes, Stored] = {}
        self.history: list[Revision] = []
        self.on_commit: Callable[[Revision, object], None] = lambda _revision, _by: None
        self.listeners: list[Callable[[Revision], None]] = []
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0

    # ---- requests

    def serve(self, path: str, request: object, by: object) -> object:
        """Answer a unary request; `by` is handed on to `on_commit`."""
        method = path.rpartition("/")[2]
        return getattr(self, f"_{method}")(request, by)

    def _header(self) -> pb.ResponseHeader:
        return pb.ResponseHeader(revision=self.revision)

    def _Range(self, request: pb.RangeRequest, by: object) -> pb.RangeResponse:
        return self._range(request, self.keys)

    def _range(self, request: pb.RangeRequest, now: dict[bytes, Stored]) -> pb.RangeResponse:
        keys = now
        if request.revision:
            if request.revision < self.compacted:
                raise Refused(grpc.StatusCode.OUT_OF_RANGE, "required revision has been compacted")
            if request.revision > self.revision:
                raise Refused(grpc.StatusCode.OUT_OF_RANGE, "required revision is a future revision")
            keys = self._at(request.revision)
        if request.range_end:
            found = sorted(
                k for k in keys if request.key <= k and (request.range_end == b"\0" or k < request.range_end)
            )
        else:
            found = [request.key] if request.key in keys else []
        response = pb.RangeResponse(header=self._header(), count=len(found))
        if request.count_only:
            return response
        if request.limit and len(found) > request.limit:
            found, response.more = found[: request.limit], True
        for key in found:
            response.kvs.append(_kv(key, keys[key], with_value=not request.keys_only))
        return response

    def _at(self, revision: int) -> dict[bytes, Stored]:
        keys = dict(self.keys)
        for past in reversed(self.history):
            if past.number <= revision:
                break
            for change in past.changes:
                if change.old is None:
                    keys.pop(change.key, None)
                else:
                    keys[change.key] = change.old
        return keys

    def _Txn(self, request: pb.TxnRequest, by: object) -> pb.TxnResponse:
        succeeded = all(self._holds(c) for c in request.compare)
        response = pb.TxnResponse(succeeded=succeeded)
        writes: dict[bytes, tuple[bytes, int] | None] = {}
        for op in request.success if succeeded else request.failure:
            answer = response.responses.add()
            match op.WhichOneof("request"):
                case "request_range":
                    answer.response_range.CopyFrom(self._range(op.request_range, self.keys))
                case "request_put":
                    put = op.request_put
                    if put.lease and put.lease not in self._leases:
                        raise Refused(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
                    assert put.key not in writes, "etcd refuses a key that is written twice in a txn"
                    writes[put.key] = (put.value, put.lease)
                case "request_delete_range":
                    assert not op.request_delete_range.range_end
                    writes[op.request_delete_range.key] = None
        self._write(writes, by)
        response.header.revision = self.revision
        return response

    def _holds(self, compare: pb.Compare) -> bool:
        found = self.keys.get(compare.key)
        if compare.target == pb.Compare.CREATE:
            return (found.created if found else 0) == compare.create_revision
        if compare.target == pb.Compare.MOD:
            return (found.modified if found else 0) == compare.mod_revision
        if compare.target == pb.Compare.VALUE:
            return found is not None and found.value == compare.value
        raise AssertionError(f"the model knows no comparison {compare.target}")

    def _write(self, writes: dict[bytes, tuple[bytes, int] | None], by: object) -> None:
        number = self.revision + 1
        changes = []
        for key, write in writes.items():
            old = self.keys.get(key)
            if write is None:
                if old is None:
                    continue
                changes.append(Changed(key, old, None))
                del self.keys[key]
                self._detach(key, old)
                continue
            value, lease = write
            new = Stored(value, old.created if old else number, number, old.version + 1 if old else 1, lease)
            if old:
                self._detach(key, old)
            if lease:
                self._leases[lease].keys.add(key)
            self.keys[key] = new
            changes.append(Changed(key, old, new))
        if not changes:
            return
        self.revision = number
        revision = Revision(number, tuple(changes), tuple(_event(c, number) for c in changes))
        self.history.append(revision)
        self.on_commit(revision, by)
        for listener in list(self.listeners):
            listener(revision)

    def _detach(self, key: bytes, old: Stored) -> None:
        if old.lease in self._leases:
            self._leases[old.lease].keys.discard(key)

    def since(self, start: int) -> list[Revision]:
        """Return what happened from a revision on."""
        index = len(self.history)
        while index and self.history[index - 1].number >= start:
            index -= 1
        return self.history[index:]

    def _Compact(self, request: pb.CompactionRequest, by: object) -> pb.CompactionResponse:
        if request.revision <= self.compacted or request.revision > self.revision:
            raise Refused(grpc.StatusCode.OUT_OF_RANGE, "required revision has been compacted")
        self.compact(request.revision)
        return pb.CompactionResponse(header=self._header())

    def compact(self, revision: int) -> None:
        """Forget what happened before a revision."""
        self.compacted = revision
        self.history = [r for r in self.history if r.number >= revision]

    # ---- leases

    def _LeaseGrant(self, request: pb.LeaseGrantRequest, by: object) -> pb.LeaseGrantResponse:
        self._last_lease += 1
        self._leases[self._last_lease] = _Lease(request.TTL, self._loop.now + request.TTL, set())
        self._loop.later(request.TTL, self._expire, self._last_lease)
        return pb.LeaseGrantResponse(header=self._header(), ID=self._last_lease, TTL=request.TTL)

    def _LeaseRevoke(self, request: pb.LeaseRevokeRequest, by: object) -> pb.LeaseRevokeResponse:
        if request.ID not in self._leases:
            raise Refused(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
        self._end(request.ID)
        return pb.LeaseRevokeResponse(header=self._header())

    def renew(self, lease_id: int) -> int:
        """Renew a lease; return its time to live, 0 when it is gone."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        lease.ends_at = self._loop.now + lease.ttl_s
        return lease.ttl_s

    def renew_all(self) -> None:
        """Give every lease its whole time again, as etcd does when its own leader changes."""
        for lease_id in self._leases:
            self.renew(lease_id)

    def _expire(self, lease_id: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if lease.ends_at > self._loop.now + 1e-6:
            self._loop.later(lease.ends_at - self._loop.now, self._expire, lease_id)
            return
        self._end(lease_id)

    def _end(self, lease_id: int) -> None:
        keys = sorted(self._leases[lease_id].keys)
        self._write(dict.fromkeys(keys), "lease")
        del self._leases[lease_id]

    # ---- members

    def _Status(self, request: pb.StatusRequest, by: object) -> pb.StatusResponse:
        return pb.StatusResponse(header=self._header())

    def _Alarm(self, request: pb.AlarmRequest, by: object) -> pb.AlarmResponse:
        return pb.AlarmResponse(header=self._header())


def _kv(key: bytes, stored: Stored, *, with_value: bool = True) -> pb.KeyValue:
    return pb.KeyValue(
        key=key,
        value=stored.value if with_value else b"",
        create_revision=stored.created,
        mod_revision=stored.modified,
        version=stored.version,
        lease=stored.lease,
    )


def _event(change: Changed, number: int) -> pb.Event:
    if change.new is None:
        return pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=change.key, mod_revision=number))
    return pb.Event(type=pb.Event.PUT, kv=_kv(change.key, change.new))
