"""Usage: what an answer took."""

from pydantic import BaseModel, ConfigDict


class Usage(BaseModel):
    """Requests and tokens, and their price in US dollars as far as it is known."""

    model_config = ConfigDict(frozen=True)

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})
