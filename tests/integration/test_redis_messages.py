"""What travels over Redis: how often it may come, how large it is, what it says, and in which order it is taken."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra import Orchestrator, Task, Workflow
from tests import bodies
from tests.cluster import COPIES, COUNTING, Cluster, Eavesdropper, send_copies
from tests.processes import wait_until
from tests.servers import PrivateRedis

LARGEST = 4096


@pytest.fixture
def cluster(private_redis: Callable[..., PrivateRedis], tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a store without workers."""
    with Cluster(tmp_path, private_redis().url) as made:
        yield made


A_MESSAGE_EACH = {"ORCHESTRA_WITHOUT": "continuation,succession"}
"""Leaves out what sends fewer messages than there are steps."""


def chain(length: int, name: str = "link {}") -> Workflow:
    """Return tasks that each wait for the one before."""
    tasks = [Task(name.format(n), bodies.noop) for n in range(length)]
    return Workflow("chain", tasks, {tasks[n].name: [tasks[n - 1].name] for n in range(1, length)})


def layers(depth: int, width: int) -> Workflow:
    """Return layers of tasks, each waiting for all of the layer before."""
    tasks = [[Task(f"{layer}/{n}", bodies.noop) for n in range(width)] for layer in range(depth)]
    names = [[task.name for task in layer] for layer in tasks]
    after = {name: names[layer - 1] for layer in range(1, depth) for name in names[layer]}
    return Workflow("layers", [task for layer in tasks for task in layer], after)


def completed_once(orch: Orchestrator, run_id: str) -> bool:
    """Say whether each step of a run was claimed once, recorded once, and reported once."""
    return all(task.claims == 1 for task in orch.get_run(run_id).tasks) and recorded_once(orch, run_id)


def recorded_once(orch: Orchestrator, run_id: str) -> bool:
    """Say whether each step of a run was recorded and reported once, whoever had claimed it and given it back."""
    tasks = orch.get_run(run_id).tasks
    reported = Counter(event.task_id for event in orch.history(run=run_id, type="task.completed", limit=10_000))
    return (len(reported), reported.total()) == (len(tasks), len(tasks))


# Doubles


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_every_message_sent_three_times_gives_one_body_and_one_record_per_step(cluster: Cluster, pool: str) -> None:
    cluster.worker("--pool", pool, "--concurrency", "2", env={COPIES: "3", **A_MESSAGE_EACH})
    orch = cluster.orchestrator()
    send_copies(orch, 3)
    with Eavesdropper(cluster.redis()) as heard:
        overlapping = orch.submit_workflow(bodies.overlapping).wait(30)
        squares = orch.submit_workflow(bodies.squares, 12).wait(30)
        linked = orch.submit_workflow(chain(20)).wait(30)
        stubborn = orch.submit(bodies.stubborn, "thrice").wait(30)
        wait_until(lambda: not cluster.messages() and not cluster.unacknowledged(), 30, "all copies to be dropped")
    assert overlapping.output == {"D": "D(A(),B())", "F": "F(E(C(A())))", "G": "G(A(),B(),E(C(A())))"}
    assert squares.output == sum(n * n for n in range(12))
    assert (stubborn.output, stubborn.attempts, stubborn.claims) == ("thrice", 3, 3)
    for run in (overlapping, squares, linked):
        assert completed_once(orch, run.id)
    assert cluster.noted() == {
        **dict.fromkeys("ABCDEFG", 1),
        **{f"square {n}": 1 for n in range(12)},
        "total": 1,
        "third_time thrice": 3,
    }
    assert len(heard.sent) >= 3 * (7 + 15 + 20 + 3)


def test_messages_that_were_pushed_again_behind_our_back_are_dropped(cluster: Cluster) -> None:
    orch = cluster.orchestrator()
    tasks = [orch.submit(bodies.echo, f"raw {n}") for n in range(10)]
    wait_until(lambda: len(cluster.messages()) == 10, 30, "all messages")
    with cluster.redis() as client:
        for message in cluster.messages():
            client.rpush(message["key"], message["raw"], message["raw"])
    assert len(cluster.messages()) == 30
    cluster.worker("--concurrency", "2")
    orch.wait_all(tasks, timeout=30)
    wait_until(lambda: not cluster.messages() and not cluster.unacknowledged(), 30, "all copies to be dropped")
    assert cluster.noted() == {f"echo raw {n}": 1 for n in range(10)}
    assert all(task.attempts == 1 for task in tasks)


# Size and content


@pytest.mark.timeout(240)
def test_no_message_is_larger_than_4_kb_whatever_the_workflow(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "2")
    orch = cluster.orchestrator()
    with Eavesdropper(cluster.redis()) as heard:
        runs = [
            orch.submit_workflow(chain(500)),
            orch.submit_workflow(layers(10, 200)),
            orch.submit_workflow(bodies.squares, 100),
            orch.submit_workflow(chain(9, "ü" * 190 + " {}")),
        ]
        orch.wait_all(runs, timeout=180)  # four seconds on an idle machine
    assert all(recorded_once(orch, run.id) for run in runs)
    largest = max(heard.sent, key=lambda message: message.size)
    print(
        f"largest message: {largest.size} bytes, with {len(largest.chain)} links to follow; {len(heard.sent)} messages"
    )
    assert largest.size <= LARGEST
    # A message a step, save what an idle worker thought lost, and what was in hand behind a body that took long.
    given_back = sum(task.claims - 1 for run in runs for task in orch.get_run(run.id).tasks)
    assert len(heard.sent) <= 1.01 * (500 + 2000 + 103 + 9) + given_back


def test_chains_travel_in_segments_of_at_most_eight_links(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "2", env=A_MESSAGE_EACH)
    orch = cluster.orchestrator()
    with Eavesdropper(cluster.redis()) as heard:
        orch.submit_workflow(chain(20)).wait(30)
    # A worker that hears nothing for a second, on a machine that stalls, may send a link again: alone.
    first = {message.name: message for message in reversed(heard.sent)}
    sent = sorted(first.values(), key=lambda message: int(message.name.split()[1]))
    assert [len(message.chain) for message in sent] == [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 3, 2, 1, 0]
    # Celery keeps the next link last.
    assert [link["options"]["shadow"] for link in reversed(sent[0].chain)] == [f"link {n}" for n in range(1, 8)]
    assert all(link["immutable"] and link["args"] == [] for message in sent for link in message.chain)


def test_a_chain_asks_the_store_for_no_more_than_one_claim_and_one_record_per_link(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "1", env={COUNTING: "1"})
    before = cluster.noted("store")
    run = cluster.orchestrator().submit_workflow(chain(20)).wait(30)
    asked = cluster.noted("store") - before
    del asked["store renew"]  # of the lease, where the chain takes so long
    assert {task.claims for task in run.tasks} == {1}
    assert asked.keys() <= {"store claim", "store record"}
    assert asked["store record"] == 20
    assert asked["store claim"] <= 20  # a record may claim the next link, too


def test_messages_hold_neither_inputs_nor_outputs(cluster: Cluster) -> None:
    cluster.worker(env=A_MESSAGE_EACH)
    orch = cluster.orchestrator()
    first, second = Task("first", bodies.echo, "s3cret" * 1000), Task("second", bodies.echo)
    with Eavesdropper(cluster.redis()) as heard:
        run = orch.submit_workflow(Workflow("secret", [first, second], {"second": ["first"]})).wait(30)
    assert run.output == "s3cret" * 1000
    assert {message.name for message in heard.sent} == {"first", "second"}
    assert all(message.size < 2000 for message in heard.sent)


# Priority


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_with_one_slot_all_ten_priorities_are_taken_in_their_order(cluster: Cluster, pool: str) -> None:
    cluster.worker("--pool", pool, "--concurrency", "1")
    orch = cluster.orchestrator()
    blocker = orch.submit(bodies.hold, "blocker", priority=10)
    cluster.wait_for_note("blocker begins")
    levels = [level for level in range(1, 11) for _ in range(4)]
    random.Random(7).shuffle(levels)
    tasks = [
        orch.submit(bodies.echo, f"{level:02} {at:02}", priority=level, queue="orchestra")
        for at, level in enumerate(levels)
    ]
    assert not blocker.status.ended
    cluster.release("blocker")
    orch.wait_all(tasks, timeout=30)
    order = [note.what.removeprefix("echo ") for note in cluster.notes("echo")]
    # What was in hand behind a body that took long, on a busy machine, goes again behind what had been sent.
    at_once = {str(task.output) for task in tasks if task.claims == 1}
    kept = [each for each in order if each in at_once]
    assert kept == sorted(kept), order
    assert len(kept) >= 20


def test_an_urgent_task_overtakes_a_backlog_that_is_larger_than_the_window(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "1")
    orch = cluster.orchestrator()
    orch.submit(bodies.hold, "blocker")
    cluster.wait_for_note("blocker begins")
    backlog = [orch.submit(bodies.echo, f"5 {n}", priority=5) for n in range(150)]
    urgent = orch.submit(bodies.echo, "1", priority=1)
    cluster.release("blocker")
    orch.wait_all([urgent, *backlog], timeout=30)
    order = [note.what for note in cluster.notes("echo")]
    assert order[0] == "echo 1"
    # What was in hand behind a body that took long, on a busy machine, goes again behind what had been sent.
    at_once = [f"echo 5 {n}" for n, task in enumerate(backlog) if task.claims == 1]
    assert [each for each in order if each in at_once] == at_once
    assert len(at_once) >= 75


def test_an_urgent_task_overtakes_a_backlog_on_which_the_worker_is_busy(cluster: Cluster) -> None:
    cluster.worker("--concurrency", "1")
    orch = cluster.orchestrator()
    backlog = [orch.submit(bodies.nap_of, kwargs={"name": f"{n}", "seconds": 0.02}, priority=5) for n in range(60)]
    passed = list[int]()
    for at in range(5):
        cluster.wait_for_note("", 10 * (at + 1))
        urgent = orch.submit(bodies.echo, f"urgent {at}", priority=1)
        bodies.note(f"submitted {at}", cluster.trace)
        urgent.wait(30)
        whats = [note.what for note in cluster.notes()]
        # The body that ran when it was submitted, and the one after whose message was just being taken.
        between = whats[whats.index(f"submitted {at}") : whats.index(f"echo urgent {at}")]
        passed.append(sum(what.endswith("begins") for what in between))
    # Where the worker stalls, its child goes on with what it has.
    assert sorted(passed)[2] <= 1, passed
    orch.wait_all(backlog, timeout=30)
