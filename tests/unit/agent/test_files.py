"""Configs and secrets on a node: what is taken out of messages, what is written, and why a task waits."""

import os
import stat

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.tasks.files import TaskFiles, take_secrets
from argosy.core.assignment import ConfigAssignment, SecretAssignment, UnreadableAssignment
from argosy.core.errors import RejectedError, TransientError
from argosy.core.service import FileRef
from argosy.core.wire import put_piece
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

CONFIG = FileRef(name="conf", id="c.1", uid=5, gid=6, mode=0o4750)
SECRET = FileRef(secret=True, name="pass", id="s.1")


def assigned(*pieces) -> Assignments:
    return Assignments(Pieces(pieces), synced=True)


def test_secrets_are_taken_out_of_a_message_before_anybody_stores_it():
    message = pb.ControllerMessage()
    for piece in (ConfigAssignment("c.1", b"shown"), SecretAssignment("s.1", b"hidden"), SecretAssignment("s.2")):
        put_piece(piece, message.assignments.put.add())
    message.assignments.put[2].secret.problem = "no key"
    assert take_secrets(message) == {"s.1": b"hidden"}
    assert b"hidden" not in message.SerializeToString()
    assert b"shown" in message.SerializeToString()


def test_what_a_secret_holds_is_not_shown():
    assert "hidden" not in repr(SecretAssignment("s.1", b"hidden"))


def test_a_config_gets_the_owner_and_mode_that_were_asked_for(tmp_path):
    files = TaskFiles(tmp_path)
    for data in (b"one", b"two"):  # also a second time, as after a prepare that was cut short
        (bind,) = files.prepare("t", [CONFIG], assigned(ConfigAssignment("c.1", data)), 0)
        found = os.stat(bind.source)
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (5, 6, 0o4750)
        assert (bind.target, bind.read_only) == ("/conf", True)
        with open(bind.source, "rb") as file:
            assert file.read() == data
    files.remove("t")
    files.remove("t")
    assert not (tmp_path / "files/t").exists()


def test_what_only_a_newer_agent_could_read_is_refused(tmp_path):
    with pytest.raises(RejectedError, match=r"too old for the config conf \(x is 9\): upgrade it"):
        TaskFiles(tmp_path).prepare("t", [CONFIG], assigned(UnreadableAssignment("config/c.1", "x is 9")), 0)


@pytest.mark.parametrize(
    ("ref", "pieces", "why"),
    [
        (CONFIG, (), "waiting for the config conf"),
        (SECRET, (), "waiting for the secret pass"),
        (SECRET, (SecretAssignment("s.1"),), "kept in memory only, and comes with a controller"),
        (SECRET, (SecretAssignment("s.1", problem="this controller lacks the key 1"),), "lacks the key 1"),
    ],
)
def test_why_a_task_waits(tmp_path, ref, pieces, why):
    with pytest.raises(TransientError, match=why):
        TaskFiles(tmp_path).prepare("t", [ref], assigned(*pieces), 0)
