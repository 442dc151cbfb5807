"""Opening: whether a server may be trusted with a store, and whether its data is of this release."""

import logging
from collections.abc import Mapping

from redis.exceptions import ResponseError

from orchestra.errors import SettingsError
from orchestra.store.redis.connection import Connection

logger = logging.getLogger(__name__)

VERSION = 1
"""Rises with every change of the keys."""
_PATIENCE_S = 1.0
"""A server that is not there when the store is opened is more likely misspelt than about to come."""


def check(connection: Connection, *, durable: bool) -> None:
    """Refuse a server that may drop data, and data of another release.

    Raises:
        SettingsError: It evicts keys, or does not write to disk although it has to, or holds another version.
        StoreUnavailable: It does not answer.
    """
    connection.command("PING", patience_s=_PATIENCE_S)
    settings = _settings(connection)
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        raise SettingsError(
            f"store {connection.url}: maxmemory-policy is {policy!r}, so that Redis may delete steps when its memory is"
            " full; it must be 'noeviction': redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)"
        )
    _check_disk(connection, settings, durable=durable)
    connection.command("HSETNX", f"{connection.key}meta", "schema", VERSION)
    found = connection.command("HGET", f"{connection.key}meta", "schema")
    if found != str(VERSION):
        raise SettingsError(
            f"store {connection.url} has schema version {found}, this release reads {VERSION};"
            " use the release that wrote it, or another ?prefix="
        )


def _check_disk(connection: Connection, settings: Mapping[str, str], *, durable: bool) -> None:
    appends, fsync = settings.get("appendonly", "no"), settings.get("appendfsync", "unknown")
    if appends != "yes":
        text = (
            f"store {connection.url}: appendonly is off, so that whatever Redis holds is lost when it stops;"
            " turn it on: redis-cli CONFIG SET appendonly yes (and in redis.conf)"
        )
        if durable:
            raise SettingsError(text)
        logger.warning("%s", text)
    elif fsync != "always":
        text = f"store {connection.url}: appendfsync is {fsync!r}"
        if durable:
            raise SettingsError(f"{text}; for ?durable=1 it must be 'always': redis-cli CONFIG SET appendfsync always")
        logger.info("%s: a crash of the server may lose the last second of outcomes; those steps then run again", text)


def _settings(connection: Connection) -> dict[str, str]:
    """Return the settings that matter; managed servers forbid CONFIG, and then INFO has most of them."""
    found: dict[str, str] = {}
    try:
        for name in ("maxmemory-policy", "appendonly", "appendfsync"):
            answer = connection.command("CONFIG", "GET", name)
            found |= zip(answer[::2], answer[1::2], strict=True)
    except ResponseError:
        info = dict(
            line.split(":", 1)
            for section in ("memory", "persistence")
            for line in str(connection.command("INFO", section)).splitlines()
            if ":" in line
        )
        if "maxmemory_policy" in info:
            found["maxmemory-policy"] = info["maxmemory_policy"]
        found["appendonly"] = "yes" if info.get("aof_enabled") == "1" else "no"
    return found
