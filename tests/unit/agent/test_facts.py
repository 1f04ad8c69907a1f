"""What an agent finds out about its host before it begins."""

import socket

import pytest

from argosy.agent.facts import find_underlay, locate
from argosy.core.errors import InvalidError


def test_names_are_looked_up_once_and_never_on_the_way() -> None:
    """The network's thread looks for the host's address, too: it must not wait for a resolver that is away."""
    assert locate(("unix:/run/c.sock", "localhost:7070", "away.invalid:7070")) == "127.0.0.1:7070"
    assert locate(("unix:/run/c.sock",)) == ""
    assert find_underlay("", "127.0.0.1:7070") == "127.0.0.1"


def test_what_leads_nowhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> str:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(InvalidError, match="no way to the controller c1:7070: Name or service not known: give --adv"):
        locate(("c1:7070",))
    with pytest.raises(InvalidError, match="--advertise is needed"):
        find_underlay("", "")
    with pytest.raises(InvalidError, match="--advertise nic7: neither an interface nor an address of this host"):
        find_underlay("nic7", "")
