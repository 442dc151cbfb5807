"""Server: metrics and probes over HTTP, on threads of the process that they are about."""

import os
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from orchestra.errors import SettingsError

Page = Callable[[str], tuple[HTTPStatus, str, bytes]]
"""Gets the header Accept; returns status, content type and content."""
TEXT = "text/plain; charset=utf-8"


class Server:
    """Answers GET for a few paths. It listens from the beginning.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any that is free.

    Raises:
        SettingsError: Nobody can listen there.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise SettingsError(
                f"metrics_port={port} is not possible on metrics_host={host!r}: {error.strerror}"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="orchestra-http", daemon=True)
        # A child that outlives this process must not keep its port.
        os.register_at_fork(after_in_child=self._server.socket.close)

    def start(self) -> None:
        """Begin to answer; until then those who connect wait."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Page]
    server_version, sys_version = "orchestra", ""
    timeout = 10  # seconds that a client may keep a thread waiting

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            known = ", ".join(self.pages)
            status, kind, content = HTTPStatus.NOT_FOUND, TEXT, f"nothing here; there is {known}\n".encode()
        else:
            status, kind, content = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds and are no news."""
