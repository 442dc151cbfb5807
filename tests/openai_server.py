"""A local server that speaks as OpenAI's chat completions do, with troubles to order."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class OpenAiServer:
    """Answers ``answers`` in order, then what fits: text, or the plainest call of the tool that it is forced to use.

    An answer is text, a pair of a tool's name and its arguments, a status with headers, or "cut".
    """

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.requests: list[dict[str, Any]] = []
        self.pause, self.pause_s = threading.Event(), 0.0
        """Between the words of an answer that is streamed."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(request)
                answer = server.answers.popleft() if server.answers else server.fitting(request)
                match answer:
                    case "cut":
                        self.send_response(200)
                        self.send_header("Content-Length", "1000")
                        self.end_headers()
                        self.wfile.write(b'{"id": "x", "cho')
                        self.close_connection = True
                    case int(status), dict(headers):
                        self.reply(status, {"error": {"message": "as ordered", "type": "test"}}, headers)
                    case _ if request.get("stream"):
                        self.stream(request["model"], answer)
                    case _:
                        self.reply(200, completion(request["model"], answer), {})

            def stream(self, model: str, answer: Any) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for each in chunks(model, answer):
                    self.wfile.write(f"data: {json.dumps(each)}\n\n".encode())
                    self.wfile.flush()
                    server.pause.wait(server.pause_s)
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def reply(self, status: int, body: object, headers: dict[str, str]) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.model = f"http://127.0.0.1:{self._server.server_port}/v1#tester"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)

    @staticmethod
    def fitting(request: dict[str, Any]) -> Any:
        """Return what a willing model says."""
        tools = {each["function"]["name"]: each["function"]["parameters"] for each in request.get("tools", ())}
        wanted = tools.get("final_result")
        if wanted is None:
            return "Certainly."
        known = {
            "approve": True,
            "reasoning": "fine",
            "winner": "pro",
            "verdict": "pro was clear",
            "text": "the report",
        }
        known["done"] = True
        return "final_result", {name: known.get(name, "x") for name in wanted["required"]}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def chunks(model: str, answer: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a completion that is streamed, and at last what it took."""
    whole = completion(model, answer)
    shell = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    message = whole["choices"][0]["message"]
    deltas = [{"content": f"{word} "} for word in (message["content"] or "").split()]
    deltas += [{"tool_calls": [{"index": 0, **each}]} for each in message.get("tool_calls", ())]
    for delta in deltas:
        yield {**shell, "choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}]}
    reason = whole["choices"][0]["finish_reason"]
    yield {**shell, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    yield {**shell, "choices": [], "usage": whole["usage"]}


def completion(model: str, answer: Any) -> dict[str, Any]:
    """Return the body of a completion."""
    message: dict[str, Any] = {"role": "assistant", "content": answer if isinstance(answer, str) else None}
    if not isinstance(answer, str):
        name, arguments = answer
        function = {"name": name, "arguments": json.dumps(arguments)}
        message["tool_calls"] = [{"id": "call-1", "type": "function", "function": function}]
    reason = "stop" if isinstance(answer, str) else "tool_calls"
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
