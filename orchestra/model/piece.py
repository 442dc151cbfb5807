"""Piece: a part of a text that a running step writes, as those who follow it see it."""

from typing import NamedTuple


class Piece(NamedTuple):
    """A part of a text; ``str`` of it is the text alone."""

    step_id: str
    """The step: ``run_id.n``."""
    by: str
    """Whose text it is: for an agent its name, its run in the step, and the request: ``writer#1/model.2``."""
    offset: int
    """Where in the text it begins, in characters: 0 begins one, anew when a worker died; a gap says that some is lost.
    """
    text: str

    def __str__(self) -> str:
        return self.text
