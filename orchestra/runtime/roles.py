"""Roles: what the workers of one kind serve, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from orchestra.errors import SettingsError
from orchestra.runtime.asyncio_pool import DEFAULT_SLOTS


@dataclass(frozen=True, slots=True)
class Role:
    """What the workers of one role have in common.

    Args:
        queues: What it serves; empty for the queues that the orchestrator itself names.
        pool: ``prefork``, ``threads``, ``solo`` or ``asyncio``.
        concurrency: Bodies at once; None for one per CPU that the worker may use.
    """

    name: str
    about: str
    queues: Sequence[str] = ()
    pool: str = "prefork"
    concurrency: int | None = None


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        each.name: each
        for each in (
            Role("default", "the orchestrator's own queues, in processes: one body per CPU"),
            Role(
                "agents",
                "the queue 'agents', on one event loop: bodies that wait, such as those of language models",
                queues=("agents",),
                pool="asyncio",
                concurrency=DEFAULT_SLOTS,
            ),
        )
    }
)


def role(name: str) -> Role:
    """Return a role.

    Raises:
        SettingsError: There is none of that name; it says which there are.
    """
    if name not in ROLES:
        known = "; ".join(f"{each.name} ({each.about})" for each in ROLES.values())
        raise SettingsError(
            f"there is no role {name!r}; there are: {known}. For anything else, give --queues, --pool and --concurrency"
        )
    return ROLES[name]
