"""The part of the store contract that is about steering runs that exist. Normative."""

from typing import Protocol

from orchestra.store.values import Created, Recorded


class Control(Protocol):
    """How people steer runs."""

    def cancel(self, run_id: str, n: int | None, now: float) -> Recorded | None:
        """Cancel a run, or one of its steps (which ends the run as CANCELLED once what is running has ended).

        Every open step of a cancelled run is CANCELLED at once, running ones included: their late records are
        superseded. None when it had ended before.
        """
        ...

    def pause(self, run_id: str, now: float) -> Recorded | None:
        """Let nothing of a RUNNING run begin any more: it is PAUSED. What is running goes on to its end.

        Ready steps stay QUEUED but are out of the window: they are not sent, not sent again, and their claims are
        refused. The event is workflow.paused. None when the run is not RUNNING, or is ending.
        """
        ...

    def resume(self, run_id: str, now: float) -> Recorded | None:
        """Let a PAUSED run go on: what is ready goes through the window. The event is workflow.resumed.

        None when the run is not PAUSED.
        """
        ...

    def retry(self, run_id: str, now: float) -> Recorded | None:
        """Open a run again that FAILED or was CANCELLED: ``engine.again`` says what of it runs.

        Those steps begin a new generation, with no attempts and no crashes; the number of their claims goes on, and
        their checkpoints stay. What completed keeps its output. The run has no deadline any more. The events are
        workflow.retried, task.retrying for those steps and task.queued for the ready ones. None when the run has not
        ended so.
        """
        ...

    def fork(self, run_id: str, new_id: str, n: int, now: float) -> Created | None:
        """Create a run like another one in which step ``n``, what depends on it, and what had not completed begin anew.

        All other steps keep their outputs. Steps that came into being while the other run went on are not copied. The
        new run has no key, no deadline and no job, and its steps are of generation 1. The events are those of a new
        run; workflow.started says ``forked_from`` and ``kept``, the numbers of the steps that will not run. None when
        there is no such step.

        Raises:
            KeyConflict: A run of the new id exists.
        """
        ...
