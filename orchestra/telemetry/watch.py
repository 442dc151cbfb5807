"""Watch: metrics and probes of one worker or beat, from the start of its process to its end."""

import logging
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import MissingExtra
from orchestra.runtime.health import READY, HeartbeatFile
from orchestra.runtime.observing import Health, Observe
from orchestra.store.contract import Backlog
from orchestra.telemetry.relay import Relay
from orchestra.telemetry.server import TEXT, Page, Server
from orchestra.telemetry.tally import Tally

if TYPE_CHECKING:
    from orchestra.telemetry.meters import Meters

logger = logging.getLogger(__name__)
_DRAIN_S = 0.5


class ProcessWatch:
    """See ``runtime.observing.Watch``. What is not asked for costs nothing.

    Args:
        backlog: Asks the store what is ready.
        clock: Seconds since the epoch.
        host: Address that metrics and probes are served on.
        port: Their port; None serves none. May be changed until ``prepare``, as may the host.
        heartbeat: A file for probes that run a command; None writes none.
    """

    def __init__(
        self, backlog: Callable[[], Sequence[Backlog]], clock: Callable[[], float], host: str, port: int | None
    ) -> None:
        self._backlog, self._clock = backlog, clock
        self.host, self.port = host, port
        self.heartbeat: Path | None = None
        self._relay: Relay | None = None
        self._server: Server | None = None
        self._file: HeartbeatFile | None = None
        self._stopping, self._draining = threading.Event(), threading.Lock()

    def prepare(self, health: Health) -> Observe | None:
        """See ``Watch``.

        Raises:
            MissingExtra: prometheus-client is not installed.
            SettingsError: Nobody can listen on that address.
        """
        if self.heartbeat is not None:
            self._file = HeartbeatFile(self.heartbeat, health)
        if self.port is None:
            return None
        try:
            from orchestra.telemetry.meters import Meters
        except ImportError as error:
            raise MissingExtra("metrics", f"metrics_port={self.port}") from error
        tally = Tally()
        meters = Meters(tally, self._backlog, self._clock)
        relay = self._relay = Relay(tally)
        pages = {"/metrics": self._metrics_page(meters, health), "/healthz": _probe(health.live, "live")}
        self._server = Server(self.host, self.port, {**pages, "/readyz": _probe(health.ready, READY)})
        return relay.observe

    def start(self) -> None:
        """See ``Watch``."""
        if self._file is not None:
            self._file.start()
        if self._server is not None:
            self._server.start()
            logger.info("Metrics and probes are at http://%s:%d", self.host, self._server.port)
            threading.Thread(target=self._drain_all, name="orchestra-metrics", daemon=True).start()

    def child_ends(self) -> None:
        """See ``Watch``."""
        if self._relay is not None:
            self._relay.flush()

    def stop(self) -> None:
        """See ``Watch``."""
        self._stopping.set()
        if self._file is not None:
            self._file.stop()
        if self._server is not None:
            self._server.close()

    def _metrics_page(self, meters: "Meters", health: Health) -> Page:
        from prometheus_client.exposition import choose_encoder

        def page(accept: str) -> tuple[HTTPStatus, str, bytes]:
            self._drain()
            meters.ready.set(health.ready() is None)
            encode, kind = choose_encoder(accept)
            return HTTPStatus.OK, kind, encode(meters.registry)

        return page

    def _drain(self) -> None:
        assert self._relay is not None
        with self._draining:
            self._relay.drain()

    def _drain_all(self) -> None:
        while not self._stopping.wait(_DRAIN_S):
            self._drain()


def _probe(trouble: Callable[[], str | None], well: str) -> Page:
    def page(_accept: str) -> tuple[HTTPStatus, str, bytes]:
        reason = trouble()
        status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
        return status, TEXT, f"{reason or well}\n".encode()

    return page
