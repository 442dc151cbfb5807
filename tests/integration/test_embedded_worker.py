"""The embedded worker: Celery's worker on threads of this process."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from celery import Celery, _state, current_app, signals
from celery.app import builtins
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject
from celery.worker import state
from kombu import Connection, Producer

from orchestra.runtime.embedded import EmbeddedWorker
from orchestra.runtime.pool import ThreadPool
from orchestra.runtime.transport import MemoryBroker
from tests.processes import least

pytestmark = pytest.mark.alone


class IsolatedCelery(Celery):
    """An application that takes no task of another one (`shared=True` is the default of `@app.task`)."""

    def finalize(self, auto: bool = False) -> None:
        if not self.finalized:
            self.finalized = True
            for name, add in vars(builtins).items():
                if name.startswith("add_"):
                    add(self)


def make_app(name: str = "embedded", **conf: Any) -> tuple[Celery, MemoryBroker]:
    broker = MemoryBroker()
    app = IsolatedCelery(name, set_as_current=False)
    app.conf.update(
        broker.settings,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        **conf,
    )
    app.finalize()
    return app, broker


@pytest.fixture
def app() -> Celery:
    return make_app()[0]


@contextmanager
def worker(app: Celery, *, concurrency: int = 2, **options: Any) -> Iterator[EmbeddedWorker]:
    with EmbeddedWorker(app, concurrency=concurrency, queues=["celery"], **options) as running:
        yield running


def eventually(condition: Callable[[], Any], *, within_s: float = 30.0) -> None:
    """Wait until a condition of which no one tells us holds."""
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.002)


def define(app: Celery, name: str, function: Callable[..., Any]) -> None:
    """Register a function; Celery itself refuses lambdas and built-in methods."""

    @app.task(shared=False, name=name)
    def run(*args: Any) -> Any:
        return function(*args)


def broker_of(app: Celery) -> MemoryBroker:
    return app.conf.broker_transport.broker


def all_acknowledged(app: Celery, running: EmbeddedWorker) -> None:
    """Wait until no message waits and none is unacknowledged: bodies end before their messages do."""
    controller: Any = running._controller
    eventually(lambda: not broker_of(app).size("celery"))  # what leaves the queue is unacknowledged at once
    eventually(lambda: not controller.consumer.task_consumer.channel.qos.delivered)


# Start and stop


def test_start_returns_when_the_worker_consumes_and_takes_less_than_150_ms(app: Celery) -> None:
    def started() -> float:
        running = EmbeddedWorker(app, concurrency=4, queues=["celery"])
        begun = time.perf_counter()
        running.start()
        took = time.perf_counter() - begun
        assert running.running
        running.stop()
        assert not running.running
        return took

    assert least(started, 0.15) < 0.15


def test_an_idle_worker_stops_at_once_and_stopping_again_is_harmless(app: Celery) -> None:
    def stopped() -> float:
        running = EmbeddedWorker(app, concurrency=4, queues=["celery"])
        running.stop()
        running.start()
        begun = time.perf_counter()
        running.stop()
        running.stop()
        return time.perf_counter() - begun

    assert least(stopped, 0.3) < 0.3


def test_a_running_body_does_not_delay_the_stop(app: Celery) -> None:
    begun, release = threading.Event(), threading.Event()

    @app.task(shared=False, name="long")
    def long() -> None:
        begun.set()
        release.wait(30)

    with worker(app) as running:
        app.send_task("long")
        assert begun.wait(30)
        started = time.perf_counter()
        running.stop()
        assert time.perf_counter() - started < 5
        # Nobody acknowledged it, so the next worker gets it.
        eventually(lambda: broker_of(app).size("celery") == 1)
    release.set()
    eventually(lambda: not any("orchestra" in thread.name for thread in threading.enumerate()))
    assert broker_of(app).size("celery") == 1


def test_a_worker_that_waits_for_an_eta_stops_at_once(app: Celery) -> None:
    define(app, "later", lambda: None)
    with worker(app) as running:
        app.send_task("later", countdown=60)
        eventually(lambda: state.scheduled_requests)
        started = time.perf_counter()
        running.stop()
        assert time.perf_counter() - started < 5
    eventually(lambda: not state.scheduled_requests and broker_of(app).size("celery") == 1)


def test_a_body_may_stop_its_own_worker(app: Celery) -> None:
    stopped = threading.Event()

    @app.task(shared=False, name="stopper")
    def stopper() -> None:
        running.stop()
        stopped.set()

    with worker(app) as running:
        app.send_task("stopper")
        assert stopped.wait(30)


def test_twenty_starts_and_stops_leak_no_threads(app: Celery) -> None:
    define(app, "noop", lambda: None)
    before = set(threading.enumerate())
    for _ in range(20):
        with worker(app, concurrency=4):
            app.send_task("noop")
    eventually(lambda: set(threading.enumerate()) <= before)
    assert not broker_of(app).lock.locked()


def test_a_worker_needs_an_in_process_broker() -> None:
    app = Celery("elsewhere", broker="redis://localhost:1/0", set_as_current=False)
    with pytest.raises(TypeError, match="MemoryBroker"):
        EmbeddedWorker(app, concurrency=1, queues=["celery"]).start()


def test_an_idle_worker_costs_no_cpu(app: Celery) -> None:
    def used() -> float:
        before = time.process_time()
        threading.Event().wait(1)
        return time.process_time() - before

    with worker(app, concurrency=4):
        idle = least(used, 0.01, rounds=5)
    print(f"idle CPU: {idle:.3%}")
    assert idle < 0.01


# Speed


def test_submitting_to_running_takes_less_than_3_ms(app: Celery) -> None:
    begun: SimpleQueue[float] = SimpleQueue()
    define(app, "noop", lambda: begun.put(time.perf_counter()))

    def median() -> float:
        delays: list[float] = []
        for _ in range(200):
            submitted = time.perf_counter()
            app.send_task("noop")
            delays.append(begun.get(timeout=30) - submitted)
        delays.sort()
        print(f"submit to body: p50 {delays[100] * 1e3:.2f} ms, p99 {delays[197] * 1e3:.2f} ms")
        return delays[100]

    with worker(app, concurrency=4):
        assert least(median, 0.003) < 0.003


def test_two_thousand_tasks_are_run_once_each(app: Celery) -> None:
    done: SimpleQueue[int] = SimpleQueue()
    define(app, "noop", done.put)

    def takes() -> float:
        started = time.perf_counter()
        for number in range(2000):
            app.send_task("noop", (number,))
        numbers = [done.get(timeout=30) for _ in range(2000)]
        took = time.perf_counter() - started
        assert sorted(numbers) == list(range(2000))
        return took

    with worker(app, concurrency=4):
        took = least(takes, 2.0, rounds=10)
    print(f"no-op tasks: {2000 / took:,.0f} per second")
    assert took < 2.0


# Priority


def test_with_one_slot_all_urgent_tasks_run_before_all_others(app: Celery) -> None:
    order: SimpleQueue[int] = SimpleQueue()
    begun, release = threading.Event(), threading.Event()

    @app.task(shared=False, name="block")
    def block() -> None:
        begun.set()
        release.wait(30)

    define(app, "note", order.put)
    with worker(app, concurrency=1):
        app.send_task("block", priority=5)
        assert begun.wait(30)
        for number in range(20):
            app.send_task("note", (500 + number,), priority=5)
        for number in range(20):
            app.send_task("note", (100 + number,), priority=1)
        release.set()
        ran = [order.get(timeout=30) for _ in range(40)]
    assert ran == [100 + number for number in range(20)] + [500 + number for number in range(20)]


# Isolation


@pytest.mark.usefixtures("untouched_process")
def test_three_applications_with_a_task_of_the_same_name_do_not_disturb_each_other() -> None:
    ran: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def define_work(app: Celery, label: str, **options: Any) -> None:
        @app.task(name="work", **options)
        def work() -> None:
            ran.put((label, current_app.main))

    users = Celery("users", broker="memory://", set_as_current=False)
    users.conf.update(broker_connection_retry_on_startup=True)
    define_work(users, "users")  # shared with every application that takes shared tasks
    (one, _), (two, _) = make_app("one"), make_app("two")
    define_work(one, "one", shared=False)
    define_work(two, "two", shared=False)
    with worker(one), worker(two):
        for _ in range(50):
            one.send_task("work")
            two.send_task("work")
        seen = sorted(ran.get(timeout=30) for _ in range(100))
        assert seen == [("one", "one")] * 50 + [("two", "two")] * 50

        with start_worker(users, pool="threads", perform_ping_check=False, loglevel="critical"):
            users.send_task("work")
            one.send_task("work")
            assert {ran.get(timeout=30)[0] for _ in range(2)} == {"users", "one"}
        # That worker's stop set the flags of the whole process.
        two.send_task("work")
        assert ran.get(timeout=30) == ("two", "two")


def test_an_eager_application_beside_a_worker_runs_its_own_task(app: Celery) -> None:
    eager = Celery("eager", set_as_current=False)
    eager.conf.task_always_eager = True
    define(eager, "work", lambda: "eager")
    define(app, "work", lambda: "embedded")
    with worker(app):
        assert eager.tasks["work"].delay().get() == "eager"


def test_the_globals_of_the_process_are_left_alone(app: Celery) -> None:
    define(app, "noop", lambda: None)
    default, current = _state.default_app, _state._tls.current_app
    _state._set_task_join_will_block(True)
    try:
        with worker(app):
            app.send_task("noop")
            eventually(lambda: broker_of(app).size("celery") == 0)
            assert _state.task_join_will_block()
        assert _state.task_join_will_block()
    finally:
        _state._set_task_join_will_block(False)
    assert (_state.default_app, _state._tls.current_app) == (default, current)
    assert (state.should_stop, state.should_terminate) == (None, None)
    assert socket.getdefaulttimeout() is None
    assert ThreadPool.task_join_will_block is False


def test_closing_one_worker_does_not_cancel_the_timers_of_another() -> None:
    (one, _), (two, _) = make_app("one"), make_app("two")
    ran = threading.Event()
    define(one, "later", ran.set)

    def waited_while_another_closed(countdown: int) -> bool:
        ran.clear()
        with worker(one):
            with worker(two):
                one.send_task("later", countdown=countdown)
                eventually(lambda: state.scheduled_requests or ran.is_set())
            waits = not ran.is_set()
            assert ran.wait(30)
        return waits

    # Where a machine stalls, a short time is over before the other has closed.
    assert any(waited_while_another_closed(countdown) for countdown in (1, 3, 9))


# What bodies and messages may do


def test_a_worker_survives_whatever_a_body_raises(app: Celery) -> None:
    done = threading.Event()
    raised = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError]

    @app.task(shared=False, name="raise")
    def fail(number: int) -> None:
        raise raised[number]("on purpose")

    define(app, "done", done.set)
    with worker(app, concurrency=1) as running:
        for number in range(len(raised)):
            app.send_task("raise", (number,))
        app.send_task("done")
        assert done.wait(30)
        assert running.running
        all_acknowledged(app, running)
    assert broker_of(app).size("celery") == 0


def test_a_body_that_exits_is_reported_as_a_failure(app: Celery) -> None:
    failures: SimpleQueue[BaseException] = SimpleQueue()

    def on_failure(exception: BaseException, **_: Any) -> None:
        failures.put(exception)

    @app.task(shared=False, name="exit")
    def leave() -> None:
        raise SystemExit(3)

    signals.task_failure.connect(on_failure)
    try:
        with worker(app):
            app.send_task("exit")
            assert "exitcode 3" in str(failures.get(timeout=30))
    finally:
        signals.task_failure.disconnect(on_failure)


def test_an_ignored_message_is_acknowledged(app: Celery) -> None:
    runs: SimpleQueue[int] = SimpleQueue()

    @app.task(shared=False, name="ignore")
    def ignore() -> None:
        runs.put(1)
        raise Ignore

    with worker(app, concurrency=1) as running:
        app.send_task("ignore")
        assert runs.get(timeout=30)
        all_acknowledged(app, running)
    assert runs.empty()
    assert broker_of(app).size("celery") == 0


def test_a_rejected_message_comes_again_only_if_asked_for(app: Celery) -> None:
    runs: SimpleQueue[bool] = SimpleQueue()
    done = threading.Event()

    @app.task(shared=False, name="reject", bind=True)
    def reject(self: Any, requeue: bool) -> None:
        redelivered = self.request.delivery_info["redelivered"]
        runs.put(redelivered)
        if not redelivered:
            raise Reject("on purpose", requeue=requeue)

    define(app, "done", done.set)
    with worker(app, concurrency=1):
        app.send_task("reject", (True,))
        assert [runs.get(timeout=30), runs.get(timeout=30)] == [False, True]
        app.send_task("reject", (False,))
        assert runs.get(timeout=30) is False
        app.send_task("done")
        assert done.wait(30)
        assert runs.empty()


def test_an_error_outside_the_body_frees_the_slot(app: Celery) -> None:
    done = threading.Event()

    class BrokenHandler(app.Task):  # type: ignore[misc, name-defined]
        abstract = True

        def on_failure(self, *_: Any) -> None:
            raise RuntimeError("the failure handler fails, too")

    @app.task(shared=False, name="broken", base=BrokenHandler)
    def broken() -> None:
        raise ValueError("on purpose")

    define(app, "done", done.set)

    def break_it() -> None:
        with worker(app, concurrency=1):
            app.send_task("broken")
            app.send_task("done")
            assert done.wait(30)

    with pytest.warns(RuntimeWarning, match="outside body"):
        break_it()


def test_a_hundred_tasks_that_retry_lose_nothing(app: Celery) -> None:
    done: SimpleQueue[int] = SimpleQueue()

    @app.task(shared=False, name="retry", bind=True, max_retries=3)
    def retry(self: Any, number: int) -> None:
        if self.request.retries < 2:
            raise self.retry(countdown=0.01 if number % 2 else 0)
        done.put(number)

    with worker(app, concurrency=4):
        for number in range(100):
            app.send_task("retry", (number,))
        assert sorted(done.get(timeout=30) for _ in range(100)) == list(range(100))


def test_a_task_that_registers_after_the_start_is_found(app: Celery) -> None:
    done = threading.Event()
    with worker(app):
        define(app, "late", done.set)
        app.send_task("late")
        assert done.wait(30)


def test_unknown_tasks_and_malformed_messages_do_not_stop_the_worker(app: Celery) -> None:
    done = threading.Event()
    define(app, "done", done.set)
    broker = broker_of(app)
    with worker(app, concurrency=1) as running:
        app.send_task("unknown")
        body = json.dumps([[], {}, {}])
        for headers in (
            {},
            {"task": "done"},
            {"task": ["done"], "id": "x"},
            {"task": "done", "id": "x", "eta": "soon"},
        ):
            broker.send("celery", body, headers)
        for text in ("not json", "[]", '"text"', "[[], {}]", '{"args": 1}', ""):
            broker.send("celery", text, {"task": "done", "id": "y"})
        with Connection(transport=broker.transport) as connection:
            Producer(connection.channel()).publish(
                b"\x80",
                exchange="",
                routing_key="celery",
                content_type="application/x-python-serialize",
                content_encoding="binary",
                headers={"task": "done", "id": "z"},
            )
        assert not done.is_set()
        app.send_task("done")
        assert done.wait(30)
        assert running.running
        all_acknowledged(app, running)


def test_a_broken_worker_prints_nothing(app: Celery, capfd: pytest.CaptureFixture[str]) -> None:
    @app.task(shared=False, name="raise")
    def fail() -> None:
        raise SystemExit("on purpose")

    root, done = logging.getLogger(), threading.Event()
    define(app, "done", done.set)
    handlers, root.handlers = root.handlers, []
    try:
        with worker(app, concurrency=1):
            app.send_task("raise")
            app.send_task("unknown")
            broker_of(app).send("celery", "", {"task": "raise", "id": "x"})
            app.send_task("done")
            assert done.wait(30)
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


def test_a_body_sees_its_own_application_even_if_another_body_made_one(app: Celery) -> None:
    seen: SimpleQueue[Any] = SimpleQueue()
    define(app, "make", lambda: Celery("made by a body") and None)
    define(app, "see", lambda: seen.put(current_app._get_current_object()))
    with worker(app, concurrency=1):
        app.send_task("make")
        app.send_task("see")
        assert seen.get(timeout=30) is app


def test_events_and_remote_control_work_when_asked_for(app: Celery) -> None:
    define(app, "noop", lambda: None)
    received: SimpleQueue[str] = SimpleQueue()
    receiver = app.events.Receiver(
        app.connection_for_read(), handlers={"*": lambda event: received.put(event["type"])}, routing_key="task.#"
    )
    with worker(app, events=True) as running, receiver.consumer_context(wakeup=False) as (connection, _, _):
        replies = app.control.inspect(timeout=30, limit=1).ping()
        assert replies == {running.hostname: {"ok": "pong"}}
        app.send_task("noop")
        while received.qsize() < 3:
            connection.drain_events(timeout=30)
    assert [received.get() for _ in range(3)] == ["task-received", "task-started", "task-succeeded"]


def test_a_task_waits_in_its_queue_until_somebody_serves_it(app: Celery) -> None:
    done = threading.Event()
    define(app, "done", done.set)
    app.send_task("done", queue="other")
    with worker(app):
        pass
    assert broker_of(app).size("other") == 1
    with EmbeddedWorker(app, concurrency=1, queues=["other"]):
        assert done.wait(30)


def test_messages_of_a_stopped_worker_are_run_by_the_next_one(app: Celery) -> None:
    ran, first = set[int](), threading.Event()

    def note(number: int) -> None:
        ran.add(number)
        first.set()

    define(app, "note", note)
    with worker(app, concurrency=2):
        for number in range(300):
            app.send_task("note", (number,))
        assert first.wait(30)
    with worker(app, concurrency=2):
        eventually(lambda: len(ran) == 300 and broker_of(app).size("celery") == 0)
