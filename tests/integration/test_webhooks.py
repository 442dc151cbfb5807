"""Webhooks: signed requests to a real receiver, that miss nothing."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator, Webhook
from orchestra.bus.webhook import verify
from orchestra.errors import InvalidOption
from tests.processes import wait_until

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """Takes requests, and answers with what it is told to; 204 after that."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        waiting = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.got.append(({name.lower(): value for name, value in handler.headers.items()}, body))
                status, headers = next(waiting, (204, {}))
                handler.send_response(status)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def numbers(self) -> list[int]:
        """Return the numbers in the events that came, in that order."""
        return [json.loads(body)["data"]["data"]["n"] for _headers, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    made = Receiver(*getattr(request, "param", ()))
    yield made
    made.close()


def subscribe(orch: Orchestrator, url: str) -> None:
    orch.on("order.*", Webhook(url, secret=SECRET), name="hook")


def test_an_event_is_a_signed_request(receiver: Receiver) -> None:
    with Orchestrator() as orch:
        subscribe(orch, receiver.url)
        orch.emit("order.placed", {"n": 1, "what": "größe"})
        wait_until(lambda: receiver.got, 30, "a request")
        (event,) = orch.history(type="order.*")
    headers, body = receiver.got[0]
    assert json.loads(body) == {
        "type": "order.placed",
        "timestamp": event.time.isoformat(),
        "data": {
            "id": event.id, "run_id": None, "task_id": None, "job_id": None, "worker": None,
            "data": {"n": 1, "what": "größe"},
        },
    }  # fmt: skip
    assert headers["content-type"] == "application/json"
    assert verify(SECRET, headers, body)
    assert not verify(SECRET, headers, body + b" ")
    assert not verify("whsec_" + "A" * 32, headers, body)
    assert not verify(SECRET, {**headers, "webhook-id": "another"}, body)
    later = float(headers["webhook-timestamp"]) + 301
    assert not verify(SECRET, headers, body, now=later)
    assert not verify(SECRET, {}, body)


def test_a_signature_is_that_of_the_specification() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v2,unknown v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(SECRET, headers, b'{"test": 2432232314}', now=1614265330)


@pytest.mark.parametrize("receiver", [[(503, {}), (429, {"retry-after": "1"})]], indirect=True)
def test_what_is_not_taken_is_sent_again_in_order_with_the_same_id(receiver: Receiver) -> None:
    with Orchestrator() as orch:
        subscribe(orch, receiver.url)
        for n in range(2):
            orch.emit("order.placed", {"n": n})
        wait_until(lambda: len(receiver.got) == 4, 30, "all requests")
    assert receiver.numbers() == [0, 0, 0, 1]
    ids = [headers["webhook-id"] for headers, _body in receiver.got]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


@pytest.mark.parametrize("receiver", [[(400, {})]], indirect=True)
def test_what_is_refused_is_logged_and_the_next_event_follows(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with Orchestrator() as orch, caplog.at_level(logging.ERROR):
        subscribe(orch, receiver.url)
        for n in range(2):
            orch.emit("order.placed", {"n": n})
        wait_until(lambda: receiver.numbers() == [0, 1], 30, "both requests")
    assert "400 Bad Request" in caplog.text


def test_what_happened_while_nobody_answered_comes_in_the_next_process(tmp_path: Path) -> None:
    with socket.socket() as gone, Orchestrator(state_file=tmp_path / "state.db") as orch:
        gone.bind(("127.0.0.1", 0))  # and does not listen, nor does anybody else on its port
        subscribe(orch, f"http://127.0.0.1:{gone.getsockname()[1]}/hook")
        for n in range(3):
            orch.emit("order.placed", {"n": n})
    receiver = Receiver()
    try:
        with Orchestrator(state_file=tmp_path / "state.db") as orch:
            subscribe(orch, receiver.url)
            wait_until(lambda: receiver.numbers() == [0, 1, 2], 30, "what nobody took")
    finally:
        receiver.close()


def test_what_cannot_work_is_refused_without_telling_the_secret() -> None:
    for secret in ("geheim", "whsec_c2hvcnQ=", "whsec_!"):
        with pytest.raises(InvalidOption) as caught:
            Webhook("https://example.org", secret=secret)
        assert secret not in str(caught.value)
    with pytest.raises(InvalidOption, match="url"):
        Webhook("example.org", secret=SECRET)
    with Orchestrator() as orch, pytest.raises(InvalidOption, match="name"):
        orch.on("task.failed", Webhook("https://example.org", secret=SECRET))
