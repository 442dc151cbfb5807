"""``orchestra store``: what a store holds, its tables, and what is old in it."""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import unquote

import typer

from orchestra import settings, wiring
from orchestra.errors import SettingsError
from orchestra.model.duration import parse_duration
from orchestra.settings import FORGOTTEN, Settings
from orchestra.store.contract import Lease, Store

app = typer.Typer(name="store", help="Look at a store, migrate its tables, delete what is old.", no_args_is_help=True)

_BITE = 100
_URL = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The store; default: ORCHESTRA_STORE or orchestra.toml.")
]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Tables:
    """Which tables, or keys, a store has."""

    kind: str
    url: str
    """Without its password."""
    version: str | None
    """None when it has none yet."""
    newest: str
    """What this release reads and writes."""
    release: str | None = None
    """The release that made or last migrated them, where that is kept."""

    @property
    def status(self) -> str:
        """What is to be done about them."""
        if self.version is None:
            return "empty: it gets its tables when it is first used"
        if self.version == self.newest:
            return "ready"
        return "older: run orchestra store migrate" if self.version < self.newest else "newer than this release"


@app.command()
def info(store: _URL = None, as_json: _JSON = False) -> None:
    """Say what a store is and holds. The exit status is 1 when this release cannot open it."""
    given = _settings(store)
    tables = _tables(given)
    facts: dict[str, object] = {**asdict(tables), "status": tables.status}
    ready = tables.version == tables.newest
    if ready:
        with closing(wiring.open_store(given)) as opened:
            facts |= _contents(opened)
    _print(facts, as_json=as_json)
    raise typer.Exit(0 if ready or tables.version is None else 1)


@app.command()
def migrate(store: _URL = None, as_json: _JSON = False) -> None:
    """Bring the tables of a store up to this release; an empty database gets them. Stop the workers before."""
    given = _settings(store, must_exist=False)
    before = _tables(given)
    if before.kind != "redis":  # its keys have had one layout so far, which is checked when it is opened
        from orchestra.store.sql import migrate as migrations  # SQLAlchemy takes long to import

        migrations.upgrade(given.store or "")
    after = _tables(given)
    _print({"store": after.url, "from": before.version, "to": after.version}, as_json=as_json)


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long ago runs ended: 30d, 12h, 90m, seconds; default: keep_for."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many runs would be deleted.")] = False,
    store: _URL = None,
    as_json: _JSON = False,
) -> None:
    """Delete runs that ended long ago, with their steps, results and events. Workers may go on meanwhile."""
    given = _settings(store)
    before = time.time() - _age(older_than, given).total_seconds()
    with closing(wiring.open_store(given)) as opened:
        count = opened.prunable(before) if dry_run else _delete(opened, before)
    _print({"store": opened.url, "would_delete" if dry_run else "deleted": count}, as_json=as_json)


def _delete(store: Store, before: float) -> int:
    total = 0
    while deleted := store.prune(before, _BITE):
        total += deleted
    return total


def _age(older_than: str | None, given: Settings) -> timedelta:
    if older_than is None:
        if given.keep_for is None:
            raise SettingsError("give --older-than, such as 30d, or set ORCHESTRA_KEEP_FOR")
        return given.keep_for
    try:
        return parse_duration(older_than)
    except ValueError as error:
        raise SettingsError(f"--older-than {error}") from None


def _settings(url: str | None, *, must_exist: bool = True) -> Settings:
    """Return the settings, with a store that others can look at."""
    given = settings.load(store=url)
    if given.store is None:
        raise SettingsError("there is no store: give --store URL or set ORCHESTRA_STORE")
    if given.store in FORGOTTEN:
        raise SettingsError(f"store {given.store} is inside the process that made it; nobody else can look at it")
    path = given.store.removeprefix("sqlite:///").partition("?")[0]
    if must_exist and given.store.startswith("sqlite:///") and not Path(unquote(path)).exists():
        raise SettingsError(f"store {given.store}: there is no such file; the current folder is {str(Path.cwd())!r}")
    return given


def _tables(given: Settings) -> Tables:
    url = given.store or ""
    if not url.startswith(("sqlite:", "postgresql:", "postgresql+psycopg:")):
        from orchestra.store.redis.opening import VERSION

        with closing(wiring.open_store(given)) as opened:  # which refuses any other version
            return Tables("redis", opened.url, str(VERSION), str(VERSION))
    from orchestra.store.sql import migrate as migrations

    found = migrations.info(url)
    return Tables(found.url.partition(":")[0], found.url, found.version, found.newest, found.release)


def _contents(store: Store) -> Mapping[str, object]:
    census, now = store.census(), time.time()
    return {
        "runs": {str(status): count for status, count in sorted(census.runs.items())},
        "steps": census.steps,
        "events": census.events,
        "size_bytes": census.size,
        "ready_steps": store.depth(),
        "workers": [_worker(lease, now) for lease in store.leases()],
    }


def _worker(lease: Lease, now: float) -> Mapping[str, object]:
    about = {"name": lease.worker, "host": lease.host, "queues": list(lease.queues), "slots": lease.slots}
    return {**about, "alive": lease.expires_at > now}


def _print(facts: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        for line in _lines(value):
            print(f"{name.replace('_', ' '):{width}}{line}")


def _lines(value: object) -> list[str]:
    """Return what people read of a fact; a list of several things has a line for each."""
    match value:
        case None:
            return ["-"]
        case Mapping():
            pairs = cast("Mapping[str, object]", value)
            return [", ".join(f"{name} {_lines(each)[0]}" for name, each in pairs.items()) or "none"]
        case list() if value and isinstance(value[0], Mapping):
            return [line for each in cast("list[object]", value) for line in _lines(each)]
        case list():
            return [" ".join(map(str, cast("list[object]", value))) or "none"]
        case bool():
            return ["yes" if value else "no"]
        case int():
            return [f"{value:,}"]
        case _:
            return [str(value)]
