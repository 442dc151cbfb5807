"""Metrics and probes of real workers and beats."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra import RetryPolicy
from tests import bodies
from tests.cluster import DEAF, Cluster
from tests.monitoring import address, metrics, page
from tests.processes import Process, wait_until
from tests.servers import PrivateRedis

SERVE = ("--metrics-port", "0")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with PrivateRedis() as server, Cluster(tmp_path_factory.mktemp("metrics"), server.url) as made:
        yield made


@pytest.fixture
def alone(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose broker nothing else uses."""
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


def seen(url: str, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    wait_until(lambda: metrics(url).get(name) == value, 60, f"{name} = {value}")


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_worker_shows_what_its_bodies_did_in_whatever_process(cluster: Cluster, pool: str) -> None:
    orch = cluster.orchestrator()
    # No worker yet: what is ready waits for one.
    queue = f"shown-{pool}"
    done = [orch.submit(bodies.noop, queue=queue) for _ in range(3)]
    failing = orch.submit(bodies.boom, "x", retry=RetryPolicy(max_attempts=2, delay=0), queue=queue)
    process = cluster.worker("--pool", pool, "--concurrency", "2", "--queues", queue, *SERVE)
    url = address(process)
    orch.wait_all([*done, failing], timeout=60)
    noop, boom = (f'queue="{queue}",task="tests.bodies:{name}"' for name in ("noop", "boom"))
    # A child of a machine that stalls gives back what it has not begun, and that is claimed again.
    of_noop, of_boom = sum(each.claims for each in done), failing.claims
    wanted = {
        f'orchestra_steps_ended_total{{outcome="failed",{boom}}}': 1,
        f'orchestra_steps_ended_total{{outcome="completed",{noop}}}': 3,
        f'orchestra_steps_ended_total{{outcome="retried",{boom}}}': 1,
        f"orchestra_steps_started_total{{{noop}}}": of_noop,
        f"orchestra_steps_started_total{{{boom}}}": of_boom,
        f"orchestra_step_seconds_count{{{noop}}}": 3,
        f'orchestra_step_lag_seconds_count{{queue="{queue}"}}': of_noop + of_boom,
        'orchestra_store_seconds_count{operation="record"}': 5,
        "orchestra_ready": 1,
    }
    for name, value in wanted.items():
        seen(url, name, value)
    found = metrics(url)
    # They were ready before the worker was started, which takes long enough to be seen.
    assert found[f'orchestra_step_lag_seconds_sum{{queue="{queue}"}}'] > 0.1
    assert found['orchestra_store_seconds_count{operation="renew"}'] >= 1
    # What is claimed with the record of the step before is no question of its own to the store.
    assert 1 <= found['orchestra_store_seconds_count{operation="claim"}'] <= of_noop + of_boom
    assert found[f'orchestra_messages_received_total{{queue="{queue}"}}'] >= 1
    assert process.stop(30) == 0


def test_what_is_ready_is_counted_with_the_broker_and_in_the_store(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    for _ in range(70):
        orch.submit(bodies.noop, queue="unserved")
    url = address(cluster.run(["beat", *SERVE], ready=True))
    where = 'orchestra_ready_steps{{queue="unserved",where="{}"}}'.format
    seen(url, where("broker"), 64)
    found = metrics(url)
    assert (found[where("broker")], found[where("store")]) == (64, 6)
    age = 'orchestra_oldest_ready_seconds{queue="unserved"}'
    wait_until(lambda: metrics(url)[age] > found[age] > 0, 30, "an age that rises")
    assert page(f"{url}/healthz") == (200, "live\n")
    assert page(f"{url}/readyz") == (200, "ready\n")


def test_takeovers_and_lost_messages_are_counted(alone: Cluster) -> None:
    orch = alone.orchestrator()
    held = orch.submit(bodies.hold, "it")
    first = alone.worker("--concurrency", "1")
    alone.wait_for_note("it begins")
    url = address(alone.worker("--concurrency", "1", *SERVE))
    first.kill9()
    seen(url, "orchestra_takeovers_total", 1)
    alone.release("it")
    held.wait(60)
    lost = orch.submit(bodies.noop, queue="late")
    with alone.redis() as client:
        wait_until(lambda: client.keys("late*"), 30, "the message")
        client.flushall()
    late = address(alone.worker("--concurrency", "1", "--queues", "late", *SERVE))
    # Once more where the worker stalls before it takes what it sent again.
    wait_until(lambda: metrics(late).get("orchestra_lost_messages_total", 0) >= 1, 60, "a message that was lost")
    lost.wait(60)


def test_a_worker_that_lost_its_broker_is_live_and_not_ready_until_it_is_back(
    private_redis: Callable[..., PrivateRedis], tmp_path: Path
) -> None:
    server = private_redis()
    heartbeat = tmp_path / "heartbeat"
    with Cluster(tmp_path, server.url) as cluster:
        process = cluster.worker("--pool", "threads", *SERVE, "--heartbeat", str(heartbeat))
        url = address(process)
        becomes(url, 200, "ready\n")
        server.kill()
        becomes(url, 503, "it is not connected to the broker\n")
        assert page(f"{url}/healthz") == (200, "live\n")
        away = "it is not connected to the broker\n"
        wait_until(lambda: heartbeat.read_text() == away, 30, "the file to say so", ignoring=OSError)
        server.restart()
        becomes(url, 200, "ready\n")
        wait_until(lambda: heartbeat.read_text() == "ready\n", 30, "the file to say so")
        assert process.stop(30) == 0
        assert not heartbeat.exists()


def becomes(url: str, status: int, text: str) -> None:
    wait_until(lambda: page(f"{url}/readyz") == (status, text), 60, f"{status} {text}")


def test_a_worker_that_hears_nothing_is_not_ready(alone: Cluster) -> None:
    alone.orchestrator().submit(bodies.noop)
    url = address(alone.worker("--concurrency", "1", *SERVE, env={DEAF: "always"}))
    becomes(url, 503, "it hears nothing of what is sent to its queues\n")


def test_a_port_that_is_taken_is_said_in_one_line(cluster: Cluster) -> None:
    taken = address(cluster.run(["beat", *SERVE], ready=True)).rpartition(":")[2]
    for command in ("worker", "beat"):
        second: Process = cluster.run([command, "--metrics-port", taken])
        assert second.wait(60) == 2
        assert (
            f"Error: metrics_port={taken} is not possible on metrics_host='127.0.0.1': Address already" in second.output
        )
        assert "Traceback" not in second.output
