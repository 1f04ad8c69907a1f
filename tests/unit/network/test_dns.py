"""Names and messages of argosy-dns, without sockets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.dns import wire
from argosy.agent.dns.upstream import nameservers
from argosy.agent.dns.wire import FormatError
from argosy.agent.dns.zone import Elsewhere, Found, FoundName, Missing, Zone


def question(name: str, kind: int = 1, *, number: int = 7, extra: bytes = b"", additional: int = 0) -> bytes:
    labels = b"".join(bytes((len(p),)) + p.encode() for p in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, additional) + labels + struct.pack("!xHH", kind, 1) + extra


OPT = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)


def test_a_query_is_read() -> None:
    query = wire.parse(question("Web.Example", 28, number=513, extra=OPT, additional=1))
    assert (query.id, query.name, query.type, query.edns, query.udp_bytes) == (513, "web.example", 28, True, 1232)
    assert wire.parse(question("web")).udp_bytes == 512


@given(st.binary(max_size=80))
def test_whatever_comes_is_a_query_or_an_error(data: bytes) -> None:
    answers: list[bytes | None]
    try:
        query = wire.parse(data)
        answers = [wire.addresses(query, [1, 2], 512), wire.negative(query, 3), wire.failure(query, 2)]
    except FormatError as error:
        answers = [error.reply]
    for answer in answers:
        assert answer is None or (answer[:2] == data[:2] and answer[2] & 0x80)


def test_a_response_is_never_answered() -> None:
    with pytest.raises(FormatError) as refused:
        wire.parse(b"\0\1\x80\0" + bytes(8))
    assert refused.value.reply is None


def test_a_later_version_of_edns_is_told_which_one_there_is() -> None:
    """RFC 6891, 6.1.3: BADVERS (16, of which the OPT record has the upper bits), and the version that is known."""
    with pytest.raises(FormatError) as refused:
        wire.parse(question("web", extra=struct.pack("!BHHBBHH", 0, 41, 1232, 0, 1, 0, 0), additional=1))
    reply = refused.value.reply
    assert reply is not None
    assert struct.unpack_from("!4H", reply, 4) == (1, 0, 0, 1)
    assert (reply[3] & 15, *struct.unpack_from("!BHHBB", reply, len(reply) - 11)) == (0, 0, 41, 1232, 1, 0)
    assert reply[12:-11] == question("web")[12:]


@given(st.integers(0, 200), st.integers(512, 4096), st.booleans())
def test_answers_fit_and_say_when_they_are_cut(count: int, limit: int, edns: bool) -> None:
    query = wire.parse(question("web", extra=OPT if edns else b"", additional=int(edns)))
    answer = wire.addresses(query, list(range(count)), limit)
    assert len(answer) <= limit
    held = struct.unpack_from("!H", answer, 6)[0]
    assert wire.is_cut(answer) == (held < count)
    assert held == count or len(answer) + 16 > limit


@pytest.mark.parametrize("kind", ["addresses", "pointer", "no such name", "no data"])
def test_whatever_is_said_is_forgotten_soon(kind: str) -> None:
    """What is not there, too: for as long as the SOA record is kept, or its last field says, if that is less."""
    query = wire.parse(question("web"))
    answer = {
        "addresses": lambda: wire.addresses(query, [1], 512),
        "pointer": lambda: wire.pointer(query, "web.shop"),
        "no such name": lambda: wire.negative(query, 3),
        "no data": lambda: wire.negative(query, 0),
    }[kind]()
    record = answer[12 + len(query.question) :]
    type_, ttl = struct.unpack_from("!HxxI", record, 2)
    negative = kind.startswith("no ")
    assert type_ == (6 if negative else 12 if kind == "pointer" else 1)
    assert 0 < ttl <= 5
    assert not negative or 0 < struct.unpack("!I", record[-4:])[0] <= 5


def test_only_the_answer_to_the_question_counts() -> None:
    query = wire.parse(question("example.org"))
    answer = wire.with_id(wire.failure(query, 3), 99)
    assert wire.answers(query, 99, answer)
    assert not wire.answers(query, 98, answer)
    assert not wire.answers(query, 99, wire.with_id(wire.failure(wire.parse(question("examples.or")), 3), 99))
    assert not wire.answers(query, 99, wire.with_id(question("example.org"), 99))
    assert not wire.answers(query, 99, answer[:12])


def test_reverse_names() -> None:
    assert wire.reverse_address("33.0.64.10.in-addr.arpa") == 0x0A400021
    for name in (
        "0.64.10.in-addr.arpa",
        "x.0.64.10.in-addr.arpa",
        "256.0.64.10.in-addr.arpa",
        "\xb2.0.64.10.in-addr.arpa",
        "web",
    ):
        assert wire.reverse_address(name) is None


RECORDS = {
    "network/a": ["front", False, 0, 32],
    "network/b": ["back", True],  # as an older agent wrote it
    "network/c": ["side", False, 0x0A410000, 1 << 16],
    "names/a/web": [0, "web", "www", "an.alias"],
    "names/a/api": [5, "api", "rest"],
    "names/b/db": [0, "db", "web"],
    "endpoint/a/t1": ["web", 1, 11, False],
    "endpoint/a/t2": ["web", 2, 12, False],
    "endpoint/a/t6": ["web", 6, 16, True],
    "endpoint/a/t7": ["api", 1, 17, False],
    "endpoint/b/t3": ["db", 0, 23, False],
    "task/t1": [["a", 11], ["b", 21]],
    "task/t3": [["b", 23]],
    "task/t4": [["a", 14]],
    "task/t5": [["a", 15], ["c", 0x0A410021]],
    "resolvers/t4": ["203.0.113.53"],
}


@pytest.fixture
def zone() -> Zone:
    made = Zone()
    made.replace(RECORDS)
    return made


@pytest.mark.parametrize(
    ("asker", "name", "answer"),
    [
        (("a", 11), "web", Found((11, 12))),
        (("b", 21), "web", Found((11, 12))),  # the task's first network, whichever it asked on
        (("a", 11), "web.back", Found((23,))),
        (("a", 11), "db", Found((23,))),
        (("a", 11), "2.web", Found((12,))),
        (("a", 11), "3.web", Missing()),
        (("a", 11), "6.web", Found((16,))),  # withdrawn: not among all, but to be found
        (("a", 11), "api", Found((5,))),
        (("a", 11), "rest.front", Found((5,))),
        (("a", 11), "tasks.rest", Found((17,))),
        (("a", 11), "1.api", Found((17,))),
        (("a", 11), "5.0.0.0.in-addr.arpa", FoundName("api.front")),
        (("b", 23), "api", Missing()),
        (("a", 11), "tasks.www.front", Found((11, 12))),
        (("a", 11), "example.org", Elsewhere()),
        (("a", 14), "example.org", Elsewhere(("203.0.113.53",))),
        (("a", 14), "web", Found((11, 12))),
        (("a", 11), "nosuch", Missing()),
        (("a", 11), "", Elsewhere()),  # the root: were there none, there would be nothing below it (RFC 8020)
        (("b", 23), "", Missing()),
        (("a", 11), "web.example.org", Elsewhere()),
        (("b", 23), "web", Found((23,))),
        (("b", 23), "db.front", Missing()),
        (("b", 23), "example.org", Missing()),
        (("a", 99), "web", Found((11, 12))),  # a stranger knows the network that it asks on
        (("a", 99), "db", Missing()),
        (("b", 23), "1.0.0.0.in-addr.arpa", Missing()),
        (("a", 11), "12.0.0.0.in-addr.arpa", FoundName("2.web.front")),
        (("a", 11), "23.0.0.0.in-addr.arpa", FoundName("db.back")),
        (("a", 11), "9.9.9.9.in-addr.arpa", Elsewhere()),
        (("a", 11), "31.0.0.0.in-addr.arpa", Missing()),  # of its network, and nobody's
        (("a", 11), "32.0.0.0.in-addr.arpa", Elsewhere()),
        (("a", 11), "9.9.65.10.in-addr.arpa", Elsewhere()),  # of a network that it is not on
        (("a", 15), "9.9.65.10.in-addr.arpa", Missing()),
        (("a", 11), "1.1.254.169.in-addr.arpa", Missing()),
        (("a", 11), "1.0.0.127.in-addr.arpa", Missing()),
    ],
)
def test_who_asks_what_and_learns_what(zone: Zone, asker: tuple[str, int], name: str, answer: object) -> None:
    assert zone.resolve(*asker, name) == answer


keys = st.sampled_from(sorted(RECORDS))


@given(st.lists(st.tuples(st.booleans(), st.sets(keys))))
def test_changes_lead_where_the_whole_would(steps: list[tuple[bool, set[str]]]) -> None:
    """However records came and went, the answers are those of the records that are left."""
    changed = Zone()
    for put, some in steps:
        changed.change({k: RECORDS[k] for k in some} if put else {}, [] if put else some)
    fresh = Zone()
    fresh.replace(dict(changed.records))
    for asker in (("a", 11), ("b", 21), ("b", 23)):
        for name in ("web", "db", "api", "tasks.api", "www", "2.web", "tasks.db", "web.back", "12.0.0.0.in-addr.arpa"):
            one, other = changed.resolve(*asker, name), fresh.resolve(*asker, name)
            assert sorted(one.addresses) == sorted(other.addresses) if isinstance(one, Found) else one == other


def test_resolvers_are_read_from_resolv_conf() -> None:
    text = "# x\nsearch a b\nnameserver 127.0.0.53\nnameserver 169.254.1.1\n nameserver [::1]:5353\nnameserver ::2\n"
    assert nameservers(text) == (("127.0.0.53", 53), ("::1", 5353), ("::2", 53))
    assert nameservers("") == (("127.0.0.1", 53),)
