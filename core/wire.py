"""Assignment messages between their domain form and the wire: shared by the dispatcher and the agent."""

from argosy.core import assignment as a
from argosy.core.codec import UnknownValueError, decode, encode_into
from argosy.core.image import Image
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

_FIELD_OF: dict[type, str] = {
    a.TaskAssignment: "task",
    a.RevisionAssignment: "revision",
    Image: "image",
    a.NetworkAssignment: "network",
    a.PeerAssignment: "peer",
    a.NamesAssignment: "names",
    a.EndpointAssignment: "endpoint",
    a.ConfigAssignment: "config",
    a.SecretAssignment: "secret",
    a.MeshAssignment: "mesh",
    a.MeshPeerAssignment: "mesh_peer",
    a.PublishedAssignment: "published",
}
_TYPE_OF = {name: cls for cls, name in _FIELD_OF.items()}


def put_piece(piece: a.Piece, message: pb.Assignment) -> None:
    """Fill an (empty) Assignment message."""
    message.key = a.key_of(piece)
    sub = getattr(message, _FIELD_OF[type(piece)])
    sub.SetInParent()
    encode_into(piece, sub)


def encoded(piece: a.Piece) -> bytes:
    """Return a piece as AssignmentSet.entries: such bytes may be joined, and are one set then."""
    entry = pb.AssignmentSet()
    put_piece(piece, entry.put.add())
    return entry.SerializeToString()


def removal(key: str) -> bytes:
    """Return the removal of a key as AssignmentSet.entries."""
    return pb.AssignmentSet(remove=(key,)).SerializeToString()


class Joined:
    """Makes one assignment message of the parts in which it came: all that is told is in `put` and `remove` then."""

    def __init__(self) -> None:
        self._begun: pb.ControllerMessage | None = None

    def add(self, message: pb.ControllerMessage) -> pb.ControllerMessage | None:
        """Take the next message; return the whole, once it has come. DecodeError."""
        body = message.assignments
        entries, more = body.entries, body.more
        body.ClearField("entries")
        body.ClearField("more")
        body.MergeFromString(entries)
        if self._begun is not None:
            self._begun.assignments.MergeFrom(body)
            message = self._begun
        self._begun = message if more else None
        return None if more else message


def read_piece(message: pb.Assignment) -> a.Piece | None:
    """Return the piece, or None for a kind that this version does not know (a newer controller's).

    A piece with a value that it does not know is an UnreadableAssignment: the others are not to suffer for it.
    """
    field = message.WhichOneof("body")
    if field is None:
        return None
    try:
        piece: a.Piece = decode(getattr(message, field), _TYPE_OF[field])
    except UnknownValueError as error:
        return a.UnreadableAssignment(message.key, str(error))
    return piece
