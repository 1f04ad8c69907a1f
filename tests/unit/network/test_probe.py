"""Probes as bytes: requests that a kernel answers, answers that are told from everything else, sizes to try."""

import struct

import pytest

from argosy.agent.logic.network_probe import (
    ETHERNET,
    LEAST_PACKET,
    Tally,
    Way,
    answers_filter,
    checksum,
    reply,
    request,
    sizes_between,
)

WAY = Way(b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02", 0x0A400020)


def answer(frame: bytes) -> bytes:
    """Answer a request as a kernel does: addresses swapped, type 0."""
    ip, icmp = frame[ETHERNET : ETHERNET + 20], frame[ETHERNET + 20 :]
    turned = ip[:12] + ip[16:20] + ip[12:16]
    return frame[6:12] + frame[:6] + frame[12:14] + turned + b"\0" + icmp[1:]


def passes(program: list[tuple[int, int, int, int]], frame: bytes) -> bool:
    """Run a classic BPF program: absolute loads, jumps, return."""
    accumulator = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case 0x28:
                accumulator = struct.unpack_from(">H", frame, k)[0]
            case 0x30:
                accumulator = frame[k]
            case 0x20:
                accumulator = struct.unpack_from(">I", frame, k)[0]
            case 0x15:
                at += yes if accumulator == k else no
            case 0x06:
                return k > 0


@pytest.mark.parametrize("size", [LEAST_PACKET, 65, 1450])
def test_a_request_is_an_echo_request_of_that_size_with_right_checksums(size: int) -> None:
    frame = request(WAY, 0x1234, 7, size)
    assert (frame[:6], frame[6:12], len(frame)) == (WAY.peer_mac, WAY.source_mac, ETHERNET + size)
    assert checksum(frame[ETHERNET : ETHERNET + 20]) == 0
    assert checksum(frame[ETHERNET + 20 :]) == 0
    assert reply(frame, 0x1234) is None  # a request is no answer


def test_an_answer_tells_whose_it_is_which_probe_and_how_large() -> None:
    frame = answer(request(WAY, 0x1234, 7, 900))
    assert reply(frame, 0x1234) == (WAY.peer_mac, 7, 900)


def test_the_filter_and_the_reader_agree_on_what_is_an_answer() -> None:
    good = answer(request(WAY, 0x1234, 7, 100))
    program = answers_filter(0x1234)
    assert passes(program, good)
    for offset in (12, ETHERNET, ETHERNET + 9, ETHERNET + 15, ETHERNET + 20, ETHERNET + 24):
        bad = bytearray(good)
        bad[offset] ^= 1
        assert not passes(program, bytes(bad)), offset
        assert reply(bytes(bad), 0x1234) is None, offset


def test_what_is_too_short_is_no_answer() -> None:
    assert reply(answer(request(WAY, 1, 1, LEAST_PACKET))[:40], 1) is None


@pytest.mark.parametrize("largest", [64, 65, 576, 1254, 1449])
def test_the_largest_size_is_found_to_the_byte_in_few_rounds(largest: int) -> None:
    passed, failed, rounds = 64, 1450, 0
    while sizes := sizes_between(passed, failed):
        rounds += 1
        passed = max([s for s in sizes if s <= largest], default=passed)
        failed = min([s for s in sizes if s > largest], default=failed)
    assert passed == largest
    assert rounds <= 4


def test_a_tally_says_what_was_lost_and_the_median_round_trip() -> None:
    tally = Tally(sent=4, trips={1: 0.001, 2: 0.002, 3: 0.009})
    assert (tally.lost, tally.latency) == (1, 0.002)
    assert Tally(sent=3).latency == 0.0
