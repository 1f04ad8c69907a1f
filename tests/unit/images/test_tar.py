"""The tar reader agrees with other tools on good archives, and has a clear word for every bad one."""

import contextlib
import gzip
import io
import tarfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.errors import RejectedError
from argosy.core.oci.compression import Compression, CorruptError, Decompressed, detect
from argosy.core.oci.tar import TarReader
from argosy.core.oci.tar_format import EntryKind, TarError
from tests.rootfs import add, layer_tar

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=90)
ENTRIES = st.lists(
    st.fixed_dictionaries({
        "name": st.lists(NAMES, min_size=1, max_size=4).map("/".join),
        "content": st.binary(max_size=1500),
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(0, 2**31 - 1),
        "mtime": st.integers(0, 2**33),
    }),
    max_size=6,
)  # fmt: skip


def entries_of(data: bytes):
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(reader.chunks())) for entry in reader]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(entries=ENTRIES)
@settings(deadline=None, max_examples=60)
def test_it_reads_what_was_written(format, entries):
    read = entries_of(layer_tar(*entries, format=format))
    assert [
        {"name": e.name, "content": data, "mode": e.mode, "uid": e.uid, "mtime": e.mtime_ns // 10**9}
        for e, data in read
    ] == entries
    assert all(e.kind is EntryKind.FILE and e.size == len(data) for e, data in read)


GOOD = layer_tar(
    {"name": "d", "kind": tarfile.DIRTYPE},
    {"name": "d/" + "long" * 60, "content": b"x" * 700, "pax": {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}},
    {"name": "l", "kind": tarfile.SYMTYPE, "target": "t" * 150},
    format=tarfile.PAX_FORMAT,
) + layer_tar({"name": "gnu" * 60, "content": b"y" * 600}, format=tarfile.GNU_FORMAT)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(GOOD)))
@settings(deadline=None, max_examples=300)
def test_damage_never_surprises(changes, length):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    for start in range(0, len(data) - 511, 512):  # most damage would only be noticed by a checksum: mend those
        _mend_checksum(data, start)
    with contextlib.suppress(RejectedError):
        entries_of(bytes(data[:length]))


def _mend_checksum(data: bytearray, start: int) -> None:
    if bytes(data[start + 257 : start + 262]) == b"ustar":
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


def raw_header(name: bytes = b"f", kind: bytes = b"0", size: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[0 : len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    _mend_checksum(block, 0)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"hello" * 200, "not a tar archive"),
        (b"hello", "not a tar archive"),
        (GOOD[:700], "middle of a header|truncated"),
        (raw_header(size=b"7777") + b"x" * 100, "middle of a file"),
        (raw_header(kind=b"x", size=b"77777777777"), "extension record has"),
        (raw_header(kind=b"L", size=b"4") + b"abcd".ljust(1024, b"\0"), "after an extension record"),
        (raw_header(kind=b"x", size=b"10") + b"9999 path=x\n".ljust(512, b"\0"), "record's length"),
        (raw_header(kind=b"x", size=b"10") + b"junk".ljust(512, b"\0"), "begin with its length"),
        (raw_header(size=b"\xff" * 12), "negative size"),
        (raw_header(size=b"zz"), "where a number belongs"),
        (raw_header(kind=b"Z"), "cannot be unpacked"),
    ],
)
def test_bad_archives(data, says):
    with pytest.raises(TarError, match=says):
        entries_of(data)


def test_an_archive_without_an_end_and_one_with_nothing():
    assert len(entries_of(raw_header())) == 1
    assert entries_of(bytes(1024)) == []
    assert entries_of(b"") == []


def test_global_pax_records_count_for_all_that_follow():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}) as archive:
        add(archive, "a")
        add(archive, "b")
    assert [entry.uid for entry, _ in entries_of(buffer.getvalue())] == [77, 77]


def test_v7_directories_end_in_a_slash():
    assert entries_of(raw_header(b"d/"))[0][0].kind is EntryKind.DIRECTORY


PACKERS = {Compression.GZIP: gzip.compress, Compression.ZSTD: zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("kind", PACKERS)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=3), st.integers(1, 5000))
@settings(deadline=None, max_examples=40)
def test_packed_streams_come_out_whole(kind, parts, size):
    packed = b"".join(PACKERS[kind](part) for part in parts)
    assert detect(packed) is kind
    stream = Decompressed(io.BytesIO(packed), kind)
    assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(parts)


@given(st.binary(max_size=5000), st.integers(0, 4000))
@settings(deadline=None, max_examples=60)
def test_a_truncated_gzip_is_always_noticed(content, cut):
    packed = gzip.compress(content)[:-1]
    stream = Decompressed(io.BytesIO(packed[: max(2, len(packed) - cut)]), Compression.GZIP)
    with pytest.raises(CorruptError, match="end early"):
        b"".join(iter(lambda: stream.read(1000), b""))
