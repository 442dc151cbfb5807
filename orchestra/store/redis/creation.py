"""Creation: new steps as arguments of functions; many of them in slices that nobody sees before the last call."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestra.engine.rows import JoinRow, StepRow, is_last, rows
from orchestra.model.status import TaskStatus
from orchestra.store.contract import NewRun
from orchestra.store.redis.rows import Links, encoded, facts_of, fallback_of, input_of, run_text, text_of

SLICE = 500
"""How many steps one call writes at most."""


_EVENTS_OF_ONE = '[["task.submitted",[0],{}],["task.queued",[0],{}]]'
_JSON = {True: "true", False: "false"}


@dataclass(frozen=True, slots=True)
class Addition:
    """Steps and joins that are added to a run."""

    slices: Sequence[Sequence[str]]
    """Fields and values of their rows, at most ``SLICE`` steps each."""
    ready: str
    """The steps that wait for nothing, as JSON: [queue, priority, rank, [n, …]] each."""
    open: str
    """How many there are for each queue, as JSON: [queue, number] each."""
    index: str
    """Their keys, as JSON: key, n, key, n, …"""


def addition(steps: Sequence[StepRow], joins: Sequence[JoinRow], now: float, *, keyed: bool = True) -> Addition:
    """Return what is written of new steps. ``keyed`` says whether they are found by their keys."""
    created = text_of(now)
    ready: dict[tuple[str, int, int], list[int]] = {}
    opened: dict[str, int] = {}
    bodies: dict[int, list[int]] = {}
    for step in steps:
        opened[step.queue] = opened.get(step.queue, 0) + 1
        if step.status is TaskStatus.QUEUED:
            ready.setdefault((step.queue, step.priority, step.rank), []).append(step.n)
        if step.waits_for is not None:
            bodies.setdefault(step.waits_for, []).append(step.n)
    links = {
        join.number: (join.parts[0], bodies[join.number][0])
        for join in joins
        if len(join.parts) == 1 and len(bodies.get(join.number, ())) == 1
    }
    slices = [
        [text for step in steps[first : first + SLICE] for text in _fields(step, created, links)]
        for first in range(0, len(steps), SLICE)
    ]
    for at, join in enumerate(join for join in joins if join.number not in links):
        slices[at % len(slices)].extend(_join_fields(join, bodies.get(join.number, [])))
    return Addition(
        slices,
        encoded([[*group, numbers] for group, numbers in ready.items()]),
        encoded(list(opened.items())),
        encoded([each for step in steps for each in (step.key, step.n)] if keyed else []),
    )


def _fields(step: StepRow, created: str, links: Links) -> Iterator[str]:
    yield from (f"f{step.n}", facts_of(step, created, links), f"i{step.n}", input_of(step))
    fallback = fallback_of(step, links)
    if fallback is not None:
        yield from (f"g{step.n}", fallback)


def _join_fields(join: JoinRow, bodies: Sequence[int]) -> list[str]:
    texts = {
        "j": encoded([len(join.parts), 0, 0, int(join.any)]),
        "p": encoded(list(join.parts)),
        "b": encoded(list(bodies)),
    }
    return [text for letter, value in texts.items() for text in (f"{letter}{join.number}", value)]


@dataclass(frozen=True, slots=True)
class Creation:
    """A run as the functions ``create`` and ``fire`` take it."""

    run: NewRun
    header: Sequence[str]
    staged: Sequence[Sequence[str]]
    """Slices to be written before; none for a run that fits into one call."""
    inline: Sequence[str]

    def sent(self, call: Callable[..., object], name: str) -> list[object]:
        """Write what goes before, under a name of its own, and return the arguments of the rest."""
        for fields in self.staged:
            call("stage_run", name, *fields)
        run = self.run
        events, *rest = self.header
        body = [*rest, *self.inline]
        of_job = ["", ""] if run.job_id is None else [run.job_id, text_of(run.scheduled_for or 0.0)]
        first = [run.id, run.key or "", run.fingerprint or "", name if self.staged else "", *of_job]
        return [*first, len(body), events, *body]


def creation(run: NewRun, now: float) -> Creation:
    """Return what is written of a new run."""
    timed = run.deadline is not None or run.expires_at is not None
    if run.single and run.job_id is None and not timed:
        return _creation_of_one(run, now)
    return creation_of_any(run, now)


def _creation_of_one(run: NewRun, now: float) -> Creation:
    """Return the same for a task that was submitted alone: most of it is known beforehand."""
    (step,), _joins = rows(run.plan)
    created = text_of(now)
    at = f'["RUNNING",true,{_JSON[run.plan.on_failure == "continue"]},1,false,false,1,0,"",false,false,"{created}"]'
    queue = encoded(step.queue)
    ready, opened = f"[[{queue},{step.priority},{step.rank},[0]]]", f"[[{queue},1]]"
    head = [_EVENTS_OF_ONE, at, run_text(run, now), encoded(run.plan.result), created, "1", ready, opened, "[]"]
    return Creation(run, head, (), list(_fields(step, created, {})))


def creation_of_any(run: NewRun, now: float) -> Creation:
    """Return what is written of a new run of any shape."""
    steps, joins = rows(run.plan)
    added = addition(steps, joins, now, keyed=not run.single)
    remaining = sum(is_last(step.feeds) for step in steps)
    goes_on = run.plan.on_failure == "continue"
    created = text_of(now)
    at: list[object] = ["RUNNING", run.single, goes_on, remaining, False, False, len(steps), len(joins), "", False]
    at += [False, created] if run.job_id is None else [False, created, run.job_id]
    if run.deadline is not None or run.expires_at is not None:
        ends = [False if each is None else text_of(each) for each in (run.deadline, run.expires_at)]
        at += [*([False] if run.job_id is None else []), *ends]
    submitted = [step.n for step in steps]
    queued = [step.n for step in steps if step.status is TaskStatus.QUEUED]
    entries: list[object] = [] if run.single else [["workflow.started", [], {"name": run.name}]]
    if run.job_id is not None:
        fired: dict[str, object] = {"job_id": run.job_id, "name": run.name, "scheduled_for": run.scheduled_for}
        told: list[object] = ["job.fired", [], fired]
        entries.insert(0, told)
    entries += [["task.submitted", submitted, {}], ["task.queued", queued, {}]]
    head = [encoded(entries), encoded(at), run_text(run, now), encoded(run.plan.result), created, str(len(steps))]
    few = len(steps) <= SLICE
    inline = [text for each in added.slices for text in each] if few else []
    return Creation(run, [*head, added.ready, added.open, added.index], () if few else added.slices, inline)
