"""Finds the servers that tests talk to, or starts them.

For each server, in this order: the one that answers on its usual local port; a private one from an installed binary,
on a free port and with files of its own; a private one after installing the binary with apt-get, where this is root or
may `sudo` without a password. Otherwise `Missing` says exactly what was looked for. Nothing is skipped in silence.

On a server that was found, tests get a database, virtual host or database number of their own, and only that one is
cleaned afterwards. Processes are ended by the handle of whoever started them, never by name.
"""

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import redis

from tests.processes import Process, wait_until

HOST = "127.0.0.1"
_CHANCE = SystemRandom()
"""Others draw from a seed, and would come to the same port."""
START_TIMEOUT_S = 60


class Missing(Exception):
    """A server is neither running nor startable; `str` says what to install or start."""


# --- Redis ---------------------------------------------------------------------------------------------------------


@contextmanager
def redis_server(port: int = 6379) -> Iterator[str]:
    """Yield the URL of an empty Redis database that nobody else uses, and empty it afterwards."""
    if _answers_as_redis(port):
        with _free_redis_database(port) as number:
            if number is not None:
                yield f"redis://{HOST}:{port}/{number}"
                return
    with PrivateRedis() as private:
        yield private.url


class PrivateRedis:
    """A Redis process of one test, to be killed, restarted and flushed at will. It keeps its port over restarts.

    With `appendonly` every write is on disk before it is answered, so a kill loses nothing (with `fsync="everysec"`, as
    Redis is by default, a power cut loses a second); without it a kill loses everything.
    """

    def __init__(self, *, appendonly: bool = False, fsync: str = "always") -> None:
        binary = find_binary("redis-server", package="redis-server", server="Redis")
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._folder = Path(tempfile.mkdtemp(prefix="orchestra-redis-"))
        durability = ["--appendonly", "yes", "--appendfsync", fsync] if appendonly else ["--appendonly", "no"]
        self._process = Process(
            [
                *(binary, "--port", str(self.port), "--bind", HOST, "--dir", str(self._folder)),
                *("--save", "", "--maxmemory-policy", "noeviction", *durability),
            ],
            log=self._folder / "redis.log",
        )

    def start(self) -> Self:
        """Start the server and return when it answers."""
        self._process.start()
        wait_until(self._answers, START_TIMEOUT_S, f"Redis on port {self.port}")
        return self

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self._process.kill9()

    def stop(self) -> None:
        """Shut it down in order."""
        self._process.stop()

    def restart(self) -> None:
        """Start it again on the same port with the same files, killing it first where it still runs."""
        if self._process.alive:
            self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it answer nothing, with all connections open, until it is thawed."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Delete everything in it, as a careless operator would."""
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """Return a new client; use it as a context manager."""
        return redis.Redis(HOST, self.port, socket_timeout=5)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _answers(self) -> bool:
        assert self._process.alive, f"redis-server ended\n{self._process.tail()}"
        return _answers_as_redis(self.port)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _answers_as_redis(port: int) -> bool:
    """Say whether an open Redis answers on the port; one that wants a password or still loads does not count."""
    if not _listens(port):  # asked first because the client would retry a refused connection for seconds
        return False
    with redis.Redis(HOST, port, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def _free_redis_database(port: int) -> Iterator[int | None]:
    """Yield the number of an empty database that no other test run holds, or None.

    Emptiness alone does not tell: another run may just have flushed its own. A lock file per number does, and it goes
    with the process that holds it. Number 0 is left alone, since it is where applications write by default.
    """
    for number in range(15, 0, -1):
        with ExitStack() as held:
            if _claimed(port, number, held):
                with redis.Redis(HOST, port, db=number, socket_timeout=5) as client:
                    try:
                        yield number
                    finally:
                        client.flushdb()
                return
    yield None


def _claimed(port: int, number: int, held: ExitStack) -> bool:
    """Take the lock of one database into `held`; say whether that worked and the database is empty."""
    path = Path(tempfile.gettempdir(), f"orchestra-tests-redis-{port}-{number}.lock")
    with redis.Redis(HOST, port, db=number, socket_timeout=5) as client:
        try:
            lock = held.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
                return False  # its last holder removed the file before we had it: ours locks nothing
            held.callback(path.unlink)
            return client.dbsize() == 0
        except (OSError, redis.ResponseError):  # held by another run, or this server has no such number
            return False


# --- RabbitMQ ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rabbit:
    """A virtual host that nobody else uses, and the command that administers its server."""

    url: str
    control: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def vhost(self) -> str:
        return urlsplit(self.url).path[1:]

    def close_connections(self) -> None:
        """Close all connections to the virtual host, as an operator may."""
        _run([*self.control, "close_all_connections", "--vhost", self.vhost, "a test"], self.env)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel of our own on the virtual host."""
        import amqp  # only tests of this server need it

        parts = urlsplit(self.url)
        with (
            amqp.Connection(f"{parts.hostname}:{parts.port}", virtual_host=self.vhost) as connection,
            connection.channel() as channel,
        ):
            yield channel


@contextmanager
def rabbitmq(port: int = 5672) -> Iterator[Rabbit]:
    """Yield a virtual host that nobody else uses, on a server found or started."""
    if _answers_as_rabbitmq(port) and (control := _rabbitmqctl()):
        vhost = f"orchestra-test-{uuid.uuid4().hex[:12]}"
        _run([*control, "add_vhost", vhost])
        try:
            _run([*control, "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*"])
            yield Rabbit(f"amqp://guest:guest@{HOST}:{port}/{vhost}", control)
        finally:
            _run([*control, "delete_vhost", vhost])
        return
    with PrivateRabbit() as private:
        yield private.rabbit


@contextmanager
def rabbitmq_server(port: int = 5672) -> Iterator[str]:
    """Yield the AMQP URL of a virtual host that nobody else uses, on a server found or started."""
    with rabbitmq(port) as made:
        yield made.url


class PrivateRabbit:
    """A node of one test, to be killed and started again at will. It keeps its port and its files.

    It has a port mapper of its own: the machine's would outlive the node or already be another's.
    """

    def __init__(self) -> None:
        wrapper = find_binary("rabbitmq-server", package="rabbitmq-server", server="RabbitMQ")
        epmd = find_binary("epmd", package="erlang-base", server="RabbitMQ's port mapper")
        # Debian's wrappers on the PATH insist on becoming the system's user; the scripts that they call do not.
        own = Path("/usr/lib/rabbitmq/bin")
        script = own / "rabbitmq-server" if (own / "rabbitmq-server").exists() else Path(wrapper)
        self.port, mapper = free_port(), free_port()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="orchestra-rabbitmq-"))
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {HOST}:{self.port}\n")
        env = {
            "HOME": str(folder),  # holds the node's cookie
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"orchestra-{uuid.uuid4().hex[:8]}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        self._mapper = Process([epmd, "-port", str(mapper)], log=folder / "epmd.log", env=env)
        self._node = Process([script], log=folder / "node.log", env=env)
        self.url = f"amqp://guest:guest@{HOST}:{self.port}//"
        self.rabbit = Rabbit(self.url, [str(script.with_name("rabbitmqctl")), "--quiet"], env)

    def start(self) -> Self:
        """Start the node and return when it answers."""
        if not self._mapper.started:
            self._mapper.start()
        self._node.start()
        wait_until(self._answers, START_TIMEOUT_S, f"RabbitMQ on port {self.port}")
        return self

    @property
    def pid(self) -> int:
        return self._node.pid

    def restart(self) -> None:
        """Kill it as a power cut would, and start it again with the same files."""
        self._node.kill9()
        self.start()

    def _answers(self) -> bool:
        assert self._node.alive, f"rabbitmq-server ended\n{self._node.tail()}"
        return _answers_as_rabbitmq(self.port)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._node.stop()
        self._mapper.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _answers_as_rabbitmq(port: int) -> bool:
    """Say whether a broker lets guest in on the port."""
    import amqp  # only tests of this server need it

    if not _listens(port):
        return False
    try:
        with amqp.Connection(f"{HOST}:{port}", userid="guest", password="guest", connect_timeout=5):
            return True
    except (OSError, amqp.AMQPError):
        return False


def _rabbitmqctl() -> list[str] | None:
    """Return the command that may administer the found server, or None where we have no right to."""
    tool = shutil.which("rabbitmqctl", path=_search_path())
    if tool is None:
        return None
    for prefix in ([], _sudo()):
        if prefix is not None and _succeeds([*prefix, tool, "--quiet", "list_vhosts"]):
            return [*prefix, tool, "--quiet"]
    return None


# --- PostgreSQL ----------------------------------------------------------------------------------------------------


@contextmanager
def postgres_server(port: int = 5432) -> Iterator[str]:
    """Yield the URL of a new database, on a server found or started, and drop it afterwards."""
    user = _postgres_user(port)
    if user is not None:
        with _new_database(port, user) as url:
            yield url
        return
    with PrivatePostgres() as private, _new_database(private.port, "postgres") as url:
        yield url


@contextmanager
def _new_database(port: int, user: str) -> Iterator[str]:
    import psycopg  # an extra: only tests of this server need it

    name = f"orchestra_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(host=HOST, port=port, user=user, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"postgresql://{user}@{HOST}:{port}/{name}"
        finally:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _postgres_user(port: int) -> str | None:
    """Return a user who gets in without a password and may create databases, or None."""
    import psycopg

    if not _listens(port):
        return None
    for user in dict.fromkeys([os.environ.get("PGUSER", "postgres"), "postgres", pwd.getpwuid(os.geteuid()).pw_name]):
        with (
            suppress(psycopg.Error),
            psycopg.connect(host=HOST, port=port, user=user, dbname="postgres", connect_timeout=5) as connection,
        ):
            may_create = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreatedb)"
            if connection.execute(may_create).fetchone():
                return user
    return None


class PrivatePostgres:
    """A PostgreSQL cluster of one test, to be killed and started again at will. It keeps its port and its files.

    It waits for the disk with `fsync` only: what a killed process loses does not depend on that.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        initdb = find_binary("initdb", package="postgresql", server="PostgreSQL")
        postgres = find_binary("postgres", package="postgresql", server="PostgreSQL")
        # PostgreSQL refuses to run as root, so root becomes another user.
        user = _unprivileged_user() if os.geteuid() == 0 else None
        self.port = free_port()
        self.url = f"postgresql://postgres@{HOST}:{self.port}/postgres"
        self._folder = folder = Path(tempfile.mkdtemp(prefix="orchestra-postgres-"))
        if user is not None:
            shutil.chown(folder, user)
        data = str(folder / "data")
        init = [
            initdb,
            "--pgdata",
            data,
            "--username",
            "postgres",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--no-sync",
        ]
        with Process(init, log=folder / "initdb.log", cwd=folder, user=user) as making:
            assert making.wait() == 0, making.tail()
        command = [postgres, "-D", data, "-h", HOST, "-p", str(self.port), "-k", "", *([] if fsync else ["-F"])]
        self._process = Process(command, log=folder / "postgres.log", cwd=folder, user=user)

    def start(self) -> Self:
        """Start the server and return when it answers."""
        self._process.start()
        wait_until(self._answers, START_TIMEOUT_S, f"PostgreSQL on port {self.port}")
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Kill it with all its sessions, as a power cut would."""
        sessions = psutil.Process(self.pid).children(recursive=True)  # each has made itself a group of its own
        self._process.kill9()
        for session in sessions:
            with suppress(psutil.NoSuchProcess):
                session.kill()
        psutil.wait_procs(sessions, timeout=10)

    def restart(self) -> None:
        """Kill it, and start it again with the same files."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        assert self._process.alive, f"postgres ended\n{self._process.tail()}"
        return _postgres_user(self.port) is not None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._process.stop(15)  # it waits for sessions that others have left open
        shutil.rmtree(self._folder, ignore_errors=True)


def _unprivileged_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise Missing("PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody.")


# --- Machines ------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that was free a moment ago, below those that the system gives to connections meanwhile."""
    while True:
        port = _CHANCE.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def find_binary(name: str, *, package: str, server: str) -> str:
    """Return the path of a server's binary, installing its Debian package where that is possible and allowed."""
    if found := shutil.which(name, path=_search_path()):
        return found
    sought = f"{server}: no server answers on its usual local port and there is no {name!r} on the PATH"
    apt, prefix = shutil.which("apt-get"), [] if os.geteuid() == 0 else _sudo()
    if apt is None or prefix is None:
        reason = "there is no apt-get" if apt is None else "this is neither root nor may it sudo without a password"
        raise Missing(f"{sought}; it could not be installed because {reason}. Install {package!r} or start {server}.")
    install = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", apt, "install", "--yes", "-qq"]
    install += ["--no-install-recommends", package]
    if not _succeeds(install) and not (_succeeds([*prefix, apt, "update", "-qq"]) and _succeeds(install)):
        raise Missing(f"{sought}; `apt-get install {package}` failed. Install it by hand or start {server}.")
    if found := shutil.which(name, path=_search_path()):
        return found
    raise Missing(f"{sought}, not even after installing {package!r}. Start {server} by hand.")


def _search_path() -> str:
    """Return the PATH and the folders where distributions keep servers off it."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *map(str, versions)])


def _sudo() -> list[str] | None:
    """Return the prefix that makes a command root's without asking anybody, or None."""
    sudo = shutil.which("sudo")
    return [sudo, "-n"] if sudo and _succeeds([sudo, "-n", "true"]) else None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return True
    except OSError:
        return False


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    whole = {**os.environ, **(env or {})}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=whole)
    assert done.returncode == 0, f"{' '.join(command)} failed: {done.stdout}{done.stderr}"
