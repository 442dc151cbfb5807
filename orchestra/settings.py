"""Settings: from arguments, then ``ORCHESTRA_*`` variables, then ``orchestra.toml``, then the embedded default."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from orchestra.errors import SettingsError
from orchestra.model.duration import parse_duration

MEMORY = "memory://"
"""The broker of an embedded orchestrator: inside this process."""
IN_MEMORY_STORE = "sqlite://"
FORGOTTEN = (MEMORY, IN_MEMORY_STORE, "sqlite:///:memory:")
"""Stores that are gone with their process."""


Lever = Literal[
    "redis-transport", "answers-later", "grouping", "continuation", "bundling", "learning", "succession"
]  # fmt: skip
"""Names of what may be left out to see whether it is to blame."""


class Settings(BaseSettings):
    """How an orchestrator is built. Every field may be given as ``ORCHESTRA_NAME`` or in ``orchestra.toml``."""

    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRA_", toml_file="orchestra.toml", frozen=True, extra="ignore", env_ignore_empty=True
    )

    broker: str = MEMORY
    """URL of the broker: redis:// or amqp://; default memory:// (embedded)."""
    store: str | None = None
    """URL of the store: sqlite:///path or postgresql://user@host/database; default in memory, embedded only."""
    queue: str = Field("orchestra", min_length=1)
    """Queue of tasks that name none."""
    concurrency: int = Field(8, ge=1, le=10_000)
    """Threads of the embedded worker."""
    modules: Annotated[tuple[str, ...], NoDecode] = ()
    """Packages that workers may import to find functions, beside the application's own; comma-separated."""
    lease_s: float = Field(5.0, ge=1.0, le=3600.0)
    """Seconds after which a worker that does not renew its lease counts as dead; renewed three times in it."""
    quorum_queues: bool = False
    """On RabbitMQ: steps go to quorum queues, one for each of three bands of priorities."""
    window: int = Field(64, ge=1, le=100_000)
    """Ready steps of one queue and priority that may be with the broker; 4 × its live slots if that is more;
    fewer where bodies are long."""
    result_limit: int = Field(32_768, ge=1024)
    """Characters of JSON up to which a result stays in its step's row in SQL; longer ones are compressed beside it."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """Port on which a worker or a beat serves metrics and probes; 0 takes any that is free; default none."""
    metrics_host: str = Field("127.0.0.1", min_length=1)
    """Address that metrics and probes are served on; ``0.0.0.0`` for all."""
    callbacks: bool = False
    """Whether callbacks may be given by name: beats then look after them. The same for producers and beats."""
    tracing: bool = False
    """Whether submits and attempts are OpenTelemetry spans; the tracer provider is the application's."""
    log_format: Literal["text", "json"] = "text"
    """How workers, beats and embedded orchestrators log: ``text``, or ``json``, a line for each record."""
    model: str | None = Field(None, min_length=1)
    """Model of agents that name none, such as ``openai:gpt-5``; embedded the default is ``offline``."""
    without: Annotated[tuple[Lever, ...], NoDecode] = ()
    """What makes things fast and shall not be used, to see whether it is to blame; comma-separated."""
    keep_for: timedelta | None = Field(None, ge=timedelta(seconds=1))
    """How long runs are kept after their end: ``30d``, ``12h``, ``90m``, or seconds; default for ever."""

    grace: timedelta = Field(timedelta(seconds=30), ge=timedelta(0))
    """How long bodies may go on when their worker is told to stop; then their steps are given back to other workers."""

    @field_validator("keep_for", "grace", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("modules", "without", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value

    @property
    def keep_for_s(self) -> float | None:
        """``keep_for`` in seconds."""
        return None if self.keep_for is None else self.keep_for.total_seconds()

    @property
    def grace_s(self) -> float:
        """``grace`` in seconds."""
        return self.grace.total_seconds()

    @property
    def embedded(self) -> bool:
        """Whether worker, broker and store are inside this process."""
        return self.broker == MEMORY

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(**given: object) -> Settings:
    """Return the settings; what is given here, other than None, comes before every other source.

    Raises:
        SettingsError: A value is not possible; it says which one and where it came from.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{name}={first['input']!r} is not possible: {first['msg']}"
            f" (given as {name}=…, ORCHESTRA_{name.upper()} or in orchestra.toml)"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"orchestra.toml cannot be read: {error}") from error
