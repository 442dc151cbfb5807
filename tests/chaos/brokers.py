"""Brokers of crash tests: what may happen to each, under one name."""

from dataclasses import dataclass
from typing import Protocol

from tests.servers import PrivateRedis, Rabbit


class Broker(Protocol):
    """A broker whose queue is a test's alone."""

    @property
    def url(self) -> str: ...
    @property
    def queue(self) -> str: ...

    def lose_messages(self) -> None:
        """Delete every message that waits."""
        ...

    def cut_connections(self) -> None:
        """Close every connection."""
        ...


@dataclass
class RedisBroker:
    """A Redis process of the test alone."""

    server: PrivateRedis
    queue: str = "orchestra"

    @property
    def url(self) -> str:
        return self.server.url

    def lose_messages(self) -> None:
        self.server.flush()

    def cut_connections(self) -> None:
        with self.server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)


@dataclass
class RabbitBroker:
    """A queue of the test alone, in a virtual host of the test run."""

    rabbit: Rabbit
    queue: str

    @property
    def url(self) -> str:
        return self.rabbit.url

    def lose_messages(self) -> None:
        with self.rabbit.channel() as channel:
            channel.queue_purge(self.queue)

    def cut_connections(self) -> None:
        self.rabbit.close_connections()
