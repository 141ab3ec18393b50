from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from harness_backends.agent.store import NotKept, Store


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Store, data: bytes) -> str:
    store.put(io.BytesIO(data).read, len(data), digest_of(data))
    return digest_of(data)


def is_kept(store: Store, sha256: str) -> bool:
    try:
        store.open(sha256).close()
    except NotKept:
        return False
    return True


def used_at(store: Store, sha256: str, seconds: float) -> None:
    os.utime(Path(store.folder) / sha256, (seconds, seconds))


def test_what_was_put_can_be_opened_and_read_on_when_it_is_gone(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "a" / "sent"), 1000)
    name = put(store, b"model")
    with store.open(name) as file:
        (tmp_path / "a" / "sent" / name).unlink()
        assert file.read() == b"model"
    assert not is_kept(store, name)


def test_what_was_damaged_is_not_taken_for_the_model(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 1000)
    name = put(store, b"model")
    (tmp_path / name).write_bytes(b"modem")
    assert not is_kept(store, name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_unused_go_first_when_room_is_needed(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 100)
    old, older, new = (put(store, bytes([n]) * 30) for n in (1, 2, 3))
    for name, seconds in ((old, 1.1e9), (older, 1e9), (new, 1.2e9)):
        used_at(store, name, seconds)
    put(store, b"4" * 30)
    assert [is_kept(store, name) for name in (old, older, new)] == [True, False, True]


def test_what_was_opened_counts_as_used(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 100)
    first, second = put(store, b"1" * 40), put(store, b"2" * 40)
    used_at(store, first, 1e9)
    used_at(store, second, 1.1e9)
    store.open(first).close()
    put(store, b"3" * 40)
    assert (is_kept(store, first), is_kept(store, second)) == (True, False)


def test_what_is_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 100)
    put(store, b"1" * 40)
    large = put(store, b"2" * 400)
    assert [path.name for path in tmp_path.iterdir()] == [large]


@pytest.mark.parametrize("fault", ["hash", "cut"])
def test_what_did_not_arrive_whole_leaves_nothing(tmp_path: Path, fault: str) -> None:
    data = b"m" * 70_000
    sent = {"hash": b"n" * 70_000, "cut": data[:-1]}[fault]
    with pytest.raises((ValueError, EOFError)):
        Store(str(tmp_path), 10**6).put(io.BytesIO(sent).read, len(data), digest_of(data))
    assert list(tmp_path.iterdir()) == []


def test_where_it_can_not_be_written_everything_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = io.BytesIO(b"m" * 70_000 + b"next")
    with pytest.raises(OSError, match="file"):
        Store(str(tmp_path / "file" / "sent"), 10**6).put(stream.read, 70_000, "0" * 64)
    assert stream.read() == b"next"
