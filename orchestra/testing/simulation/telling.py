"""How calls of the store are told in a story, for people."""

from collections.abc import Sequence
from typing import Any, cast

from orchestra.engine.outcome import Completed, Expanded, Failed, Reopened, Rescheduled
from orchestra.model.ids import MessageRef
from orchestra.store.contract import (
    Claimed,
    ClaimRef,
    Created,
    Dispatch,
    NewRun,
    Onward,
    Recorded,
    Refused,
    ToClaim,
    ToRecord,
)


def told(name: str, args: Sequence[Any], result: Any) -> str:
    """Return a call and what came of it, in a line."""
    said = [_told(each) for each in args]
    return f"{name}({', '.join(each for each in said if each)}) → {_told(result) or 'nothing'}"


def _told(value: Any) -> str:
    match value:
        case ClaimRef(ref, claim):
            return f"{ref.celery_id}#{claim}"
        case MessageRef():
            return value.celery_id
        case Claimed():
            return f"claim {value.claim.claim}, {value.crashes} crashes before"
        case Refused():
            return f"refused: {value.reason}"
        case Recorded():
            ended = f", run {value.ended_run}" if value.ended_run else ""
            gone_on = [dispatch for dispatch, _claimed in value.onward]
            taken = f"; claimed with it: {_told(gone_on)}" if gone_on else ""
            return f"done{ended}; to send: {_told(value.dispatches) or 'nothing'}{taken}"
        case ToClaim():
            return f"claim of {_told(value.message)}"
        case ToRecord():
            return f"{_told(value.claim)} {_told(value.change)}"
        case Onward():
            return f"going on with {value.most} in {value.queue} of {len(value.targets)} kinds"
        case Created():
            return f"{'existing' if value.existing else 'created'}; to send: {_told(value.dispatches) or 'nothing'}"
        case NewRun():
            return f"{value.id} of {len(value.plan.steps)} steps"
        case Dispatch():
            return value.ref.celery_id
        case Completed():
            return f"completed with {value.output[:40]}"
        case Failed():
            return f"failed with {value.error.type}: {str(value.error)[:80]}"
        case Rescheduled():
            return f"again after {value.after_s:g} s"
        case Reopened():
            return f"reopened: {value.reason}"
        case Expanded():
            return f"turned into {[step.n for step in value.expansion.steps]}"
        case float():
            return f"{value - 1_800_000_000.0:.3f}" if value > 1e9 else f"{value:g}"
        case list() | tuple():
            return " ".join(_told(each) for each in cast(Sequence[Any], value))
        case None:
            return ""
        case _:
            return str(value)[:120]
