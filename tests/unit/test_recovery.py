"""Recovery: who is dead, and when an idle worker concludes that messages were lost."""

from dataclasses import dataclass, replace

import pytest

from orchestra.engine.recovery import RESEND_PER_SLOT, UNHEARD_S, Machine, to_resend, why_dead

ALIVE = (4711, 100.0)
HERE = Machine("here", "boot-1", lambda pid, started: (pid, started) == ALIVE, *ALIVE)


@dataclass(frozen=True)
class Lease:
    host: str = "here"
    boot_id: str = "boot-1"
    pid: int = 4711
    pid_started: float = 100.0
    expires_at: float = 50.0


@pytest.mark.parametrize(
    ("lease", "now", "may_expire", "dead"),
    [
        (Lease(), 10, True, None),
        (Lease(pid=4712), 10, False, "its process is gone"),
        (Lease(pid_started=99.0), 10, False, "its process is gone"),  # the number was given to another
        (Lease(boot_id="boot-0"), 10, False, "its machine was started anew"),
        (Lease(), 51, True, "its lease ran out"),  # alive, but it does not renew
        (Lease(), 51, False, None),
        (Lease(host="there", pid=1), 10, True, None),
        (Lease(host="there", boot_id="boot-0"), 10, True, None),
        (Lease(host="there"), 49.9, True, None),
        (Lease(host="there"), 50, True, "its lease ran out"),
        (Lease(host="there"), 1000, False, None),  # whoever asks has not seen the store healthy for long enough
    ],
)
def test_a_worker_is_dead_when_its_process_is_or_its_lease_ran_out(
    lease: Lease, now: float, may_expire: bool, dead: str | None
) -> None:
    assert why_dead(lease, HERE, now=now, may_expire=may_expire) == dead


def test_without_a_boot_id_only_the_lease_tells() -> None:
    unknown = replace(HERE, boot_id="")
    assert why_dead(Lease(pid=1), unknown, now=10, may_expire=True) is None
    assert why_dead(Lease(pid=1), unknown, now=60, may_expire=True) == "its lease ran out"


@pytest.mark.parametrize(
    ("slots", "busy", "heard_ago_s", "resent"),
    [
        (4, 0, UNHEARD_S, 4 * RESEND_PER_SLOT), (4, 3, UNHEARD_S, RESEND_PER_SLOT), (4, 4, 100, 0), (4, 5, 100, 0),
        (4, 0, UNHEARD_S - 0.001, 0), (1, 0, 100, RESEND_PER_SLOT),
    ],
)  # fmt: skip
def test_only_a_worker_with_a_free_slot_that_heard_nothing_sends_again(
    slots: int, busy: int, heard_ago_s: float, resent: int
) -> None:
    assert to_resend(slots=slots, busy=busy, heard_ago_s=heard_ago_s) == resent


def test_each_round_that_finds_lost_messages_sends_four_times_as_many_up_to_a_thousand_a_slot() -> None:
    sent = [to_resend(slots=1, busy=0, heard_ago_s=UNHEARD_S, rounds=rounds) for rounds in range(6)]
    assert sent == [4, 16, 64, 256, 1024, 1024]
