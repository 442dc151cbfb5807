"""What travels to Redis and back, byte by byte."""

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions

from orchestra.store.redis.wire import Wire, packed


class Opened:
    """A connection as redis-py hands it over."""

    def __init__(self, end: socket.socket) -> None:
        self._sock = end

    def connect(self) -> None:
        self._sock.settimeout(60)

    def disconnect(self) -> None:
        self._sock.close()


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield Wire(Opened(near)), far


def test_a_command_travels_as_lengths_in_bytes_and_texts() -> None:
    command = ("SET", 12, "k\u00e9y", 1.5, b"raw", "")
    expected = b"*6\r\n$3\r\nSET\r\n$2\r\n12\r\n$4\r\nk\xc3\xa9y\r\n$3\r\n1.5\r\n$3\r\nraw\r\n$0\r\n\r\n"
    assert packed(command) == expected


@given(st.binary(max_size=50))
def test_bytes_arrive_as_they_are_where_texts_stand_for_them(payload: bytes) -> None:
    assert packed([payload], "surrogateescape") == b"*1\r\n$%d\r\n%b\r\n" % (len(payload), payload)


def test_half_a_surrogate_pair_comes_back_as_it_went(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    text = "\ud83d and \u00e9"
    wire.send(packed([text]))
    far.sendall(far.recv(1000).partition(b"\r\n")[2])
    assert wire.receive() == text


ANSWERS = b"*4\r\n:-3\r\n$-1\r\n*2\r\n$6\r\na\r\nb\xc3\xa9\r\n*-1\r\n$0\r\n\r\n+OK\r\n:7\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_answers_are_read_however_they_are_cut(ends: tuple[Wire, socket.socket], size: int) -> None:
    wire, far = ends
    answers = ANSWERS

    def say() -> None:
        for at in range(0, len(answers), size):
            far.sendall(answers[at : at + size])

    speaking = threading.Thread(target=say)
    speaking.start()
    found = [wire.receive() for _ in range(3)]
    speaking.join()
    assert found == [[-3, None, ["a\r\nb\u00e9", None], ""], "OK", 7]


def test_a_large_answer_is_read_in_time_that_grows_with_its_size(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    payload = b"x" * 20_000_000
    speaking = threading.Thread(target=far.sendall, args=(b"$%d\r\n%b\r\n+OK\r\n" % (len(payload), payload),))
    speaking.start()
    assert len(wire.receive()) == len(payload)
    assert wire.receive() == "OK"
    speaking.join()


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ("ERR Function not found", exceptions.ResponseError, "Function not found"),
        ("OOM too full", exceptions.ResponseError, "OOM too full"),
        ("READONLY of a replica", exceptions.ReadOnlyError, "READONLY of a replica"),
        ("LOADING it starts", exceptions.BusyLoadingError, "LOADING it starts"),
        ("WRONGPASS no", exceptions.AuthenticationError, "WRONGPASS no"),
        ("NOPERM no", exceptions.NoPermissionError, "NOPERM no"),
    ],
)
def test_a_refusal_is_raised_with_what_the_server_said(
    ends: tuple[Wire, socket.socket], said: str, kind: type[Exception], text: str
) -> None:
    wire, far = ends
    far.sendall(f"-{said}\r\n*2\r\n-ERR inner\r\n:1\r\n".encode())
    with pytest.raises(kind) as refused:
        wire.receive()
    assert refused.value.args[0] == text
    inner, one = wire.receive()
    assert isinstance(inner, exceptions.ResponseError)
    assert one == 1


def test_an_end_in_the_middle_of_an_answer_is_said(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    far.sendall(b"$10\r\nabc")
    far.close()
    with pytest.raises(exceptions.ConnectionError, match="closed by server"):
        wire.receive()


def test_what_is_no_answer_is_an_error_of_the_connection(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    far.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(exceptions.ConnectionError, match=r"HTTP/1\.1 400"):
        wire.receive()
