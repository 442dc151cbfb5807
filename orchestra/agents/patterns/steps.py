"""The steps that patterns consist of."""

from typing import Annotated, Any

from pydantic import Field

from orchestra.agents.patterns.chain import ChainOfThought
from orchestra.agents.patterns.collaboration import Collaboration
from orchestra.agents.patterns.consensus import Consensus
from orchestra.agents.patterns.debate import Debate
from orchestra.agents.patterns.supervisor import Supervision
from orchestra.agents.patterns.talk import Said
from orchestra.model.function import task

AnyPattern = Annotated[
    ChainOfThought | Collaboration | Consensus | Debate | Supervision, Field(discriminator="kind")
]  # fmt: skip


@task
async def take(pattern: AnyPattern, number: int, said: Said | None = None) -> Any:
    """Play one round: returns the result of the pattern, or what the next round is to know."""
    return await pattern.take(number, Said() if said is None else said)


@task
def conclude(rounds: list[dict[str, Any] | None]) -> Any:
    """Return the result: of the last round that was played. Those after it have no output."""
    return [each for each in rounds if each is not None][-1]
