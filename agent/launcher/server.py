"""The launcher's main: socket, requests, recovery. See `wire` for the protocol and `container` for what they do.

Requests are answered in any order, as their work completes: sixty creates sent at once run side by side in sixty
children. One connection may subscribe to exits; each exit is sent until it is acknowledged, also to the next one.
"""

from __future__ import annotations

import base64
import fcntl
import gc
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from . import credentials, rights, wire
from . import syscalls as sc
from .beat import Beat
from .container import Container
from .errors import LaunchError, from_os_error, rejected
from .host import Host, prepare
from .joined import JoinResult
from .loop import READ, WRITE, Loop
from .spec import parse

#: After its start, a launcher waits this long for an agent that may know how vanished containers ended.
_LOST_WAIT_S: Final = 3.0
_COLLECT_PERIOD_S: Final = 60.0
_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_MAX_ID_LENGTH: Final = 128


class Connection:
    """One client: bytes in, messages out, without ever blocking."""

    def __init__(self, sock: socket.socket, loop: Loop, on_message: Callable[[Connection, wire.Message], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_message = on_message
        self._unpacker = wire.Unpacker()
        self._unsent = b""
        self._received: deque[int] = deque()
        self.closed = False
        loop.watch(sock.fileno(), self._on_ready)

    def send(self, message: wire.Message) -> None:
        """Send now what the socket takes and the rest when it takes more."""
        if self.closed:
            return
        self._unsent += wire.pack(message)
        self._flush()

    def give(self, message: wire.Message, fds: Sequence[int]) -> None:
        """Send a message with descriptors; a client that does not read what it asked for is cut off."""
        if self.closed:
            return
        try:
            data = self._unsent + wire.pack(message)
            self._unsent = data[socket.send_fds(self._sock, [data], fds) :]
        except OSError:
            self.close()
            return
        self._flush()

    def take(self, count: int) -> list[int]:
        """Return descriptors that have come, the eldest first; they are the caller's now. There may be fewer."""
        return [self._received.popleft() for _ in range(min(count, len(self._received)))]

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._loop.watch(self._sock.fileno(), self._on_ready, READ | (WRITE if self._unsent else 0))

    def _on_ready(self) -> None:
        if self._unsent:
            self._flush()
        if self.closed:
            return
        try:
            data, fds = rights.receive(self._sock, 1 << 18, wire.MAX_DESCRIPTORS)
            self._received.extend(fds)
            messages = self._unpacker.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, wire.ProtocolError):
            messages = None
        if messages is None:
            self.close()
            return
        for message in messages:
            self._on_message(self, message)

    def close(self) -> None:
        """End the connection; what was asked for goes on."""
        if not self.closed:
            self.closed = True
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            for fd in self.take(len(self._received)):
                os.close(fd)


class Server:
    """Owns all containers of the host; answers requests."""

    def __init__(self, host: Host, loop: Loop) -> None:
        self._host = host
        self._loop = loop
        self._containers: dict[str, Container] = {}
        self._subscriber: Connection | None = None
        self._beat = Beat(host.run_dir, loop)
        self._operations: dict[str, Callable[[Connection, wire.Message], None]] = {
            "hello": self._hello,
            "create": self._create,
            "start": self._start,
            "kill": self._kill,
            "delete": self._delete,
            "list": self._list,
            "usage": self._usage,
            "exec": self._exec,
            "ack": self._acknowledge,
            "beat": self._set_beat,
            "last_words": self._take_last_words,
            "witness": self._witness,
            "keep": self._keep,
            "drop": self._drop,
            "kept": self._tell_kept,
            "give": self._give,
            "shutdown": self._shutdown,
        }

    # --- recovery -------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Adopt what an earlier launcher left: living containers go on, half-made ones and stray groups are removed."""
        for container_id in self._host.known_ids():
            container = Container(self._host, self._loop, container_id, self._announce)
            container.adopt()
            self._containers[container_id] = container
            if container.status == "creating":
                container.dispose(lambda _, container_id=container_id: self._forget(container_id))  # type: ignore[misc]
        known = {container.cgroup.path for container in self._containers.values()}
        for path in self._host.cgroups.children():
            if path not in known:
                group = self._host.cgroups.group(path)
                group.kill()
                group.remove()
        self._beat.recover()
        self._loop.after(_LOST_WAIT_S, self._conclude_lost)

    def _set_beat(self, connection: Connection, message: wire.Message) -> None:
        try:
            self._beat.set(message["settings"])
        except (TypeError, ValueError) as error:
            raise rejected(f"the beat's settings are malformed: {error}") from error
        except OSError as error:
            raise from_os_error(error, "keep the beat's settings") from error
        _answer(connection, message, None)

    def _take_last_words(self, connection: Connection, message: wire.Message) -> None:
        self._beat.say(str(message["words"]))
        _answer(connection, message, None)

    def _conclude_lost(self) -> None:
        for container in list(self._containers.values()):
            container.conclude_lost()

    # --- requests -------------------------------------------------------------------------------------------------

    def on_message(self, connection: Connection, message: wire.Message) -> None:
        """Answer one request; every failure that is not a bug becomes an error answer."""
        try:
            operation = self._operations.get(str(message.get("op")))
            if operation is None:
                raise rejected(f"unknown request {message.get('op')!r}: agent and launcher differ in version")
            operation(connection, message)
        except LaunchError as error:
            _answer(connection, message, error)
        except KeyError as error:
            _answer(connection, message, rejected(f"the request lacks {error.args[0]!r}"))

    def _hello(self, connection: Connection, message: wire.Message) -> None:
        _answer(connection, message, None, {"protocol": wire.PROTOCOL, "pid": os.getpid()})
        if not message.get("subscribe"):
            return
        self._subscriber = connection
        for container_id, status in message.get("witnessed", {}).items():
            if container_id in self._containers:
                self._containers[container_id].witness(status)
        self._conclude_lost()
        for container in self._containers.values():
            self._announce(container)

    def _create(self, connection: Connection, message: wire.Message) -> None:
        container_id = message["id"]
        if not container_id or not set(container_id) <= _ID_CHARACTERS or container_id.strip(".") == "":
            raise rejected(f"container id {container_id!r}: use letters, digits, '.', '_' and '-'")
        if len(container_id) > _MAX_ID_LENGTH:
            raise rejected(f"container id of {len(container_id)} characters: at most {_MAX_ID_LENGTH} are allowed")
        if container_id in self._containers:
            raise rejected(f"a container with the id {container_id!r} exists already")
        spec = parse(message["config"])
        container = Container(self._host, self._loop, container_id, self._announce)
        self._containers[container_id] = container

        def created(error: LaunchError | None) -> None:
            if error is not None:
                self._forget(container_id)
            _answer(connection, message, error, {"pid": container.pid, "start_ticks": container.start_ticks})

        def cloned() -> None:
            progress = {"pid": container.pid, "start_ticks": container.start_ticks}
            connection.send({"seq": message.get("seq"), "progress": progress})

        container.create(spec, message, cloned, created)

    def _start(self, connection: Connection, message: wire.Message) -> None:
        self._find(message).start(lambda error: _answer(connection, message, error))

    def _kill(self, connection: Connection, message: wire.Message) -> None:
        number = int(message.get("signal", signal.SIGKILL))
        if not 0 < number < signal.NSIG:
            raise rejected(f"signal {number} does not exist")
        self._find(message).kill(number, everything=bool(message.get("everything")))
        _answer(connection, message, None)

    def _delete(self, connection: Connection, message: wire.Message) -> None:
        container = self._containers.get(message["id"])
        if container is None:
            _answer(connection, message, None)
            return

        def deleted(error: LaunchError | None) -> None:
            self._forget(container.id)
            _answer(connection, message, error)

        container.dispose(deleted)

    def _list(self, connection: Connection, message: wire.Message) -> None:
        visible = [container for container in self._containers.values() if container.status not in _HIDDEN]
        _answer(connection, message, None, {"containers": [container.as_message() for container in visible]})

    def _usage(self, connection: Connection, message: wire.Message) -> None:
        _answer(connection, message, None, self._find(message).cgroup.usage().as_message())

    def _exec(self, connection: Connection, message: wire.Message) -> None:
        def ended(error: LaunchError | None, result: JoinResult | None) -> None:
            ok = None
            if result is not None:
                output = base64.b64encode(result.output).decode()
                ok = {"code": result.code, "output": output, "timed_out": result.timed_out}
            _answer(connection, message, error, ok)

        self._find(message).join(message, ended)

    def _acknowledge(self, connection: Connection, message: wire.Message) -> None:
        container = self._containers.get(message["id"])
        if container is not None:
            container.acknowledge()
        _answer(connection, message, None)

    def _witness(self, connection: Connection, message: wire.Message) -> None:
        container = self._containers.get(message["id"])
        if container is not None:
            container.witness(int(message["status"]))
        _answer(connection, message, None)

    def _keep(self, connection: Connection, message: wire.Message) -> None:
        fds = connection.take(int(message["count"]))
        if not fds or len(fds) < message["count"]:
            for fd in fds:
                os.close(fd)
            raise rejected(f"{message['count']} descriptors were announced, and {len(fds)} have come")
        self._host.kept.keep(str(message["name"]), fds)
        _answer(connection, message, None)

    def _drop(self, connection: Connection, message: wire.Message) -> None:
        self._host.kept.drop(str(message["name"]))
        _answer(connection, message, None)

    def _tell_kept(self, connection: Connection, message: wire.Message) -> None:
        _answer(connection, message, None, {"names": self._host.kept.names()})

    def _give(self, connection: Connection, message: wire.Message) -> None:
        fds = self._host.kept.of(str(message["name"]))
        connection.give({"seq": message.get("seq"), "ok": {"count": len(fds)}}, fds)

    def _shutdown(self, connection: Connection, message: wire.Message) -> None:
        """End this launcher. Containers run on; without any, the host's groups go too."""
        if not self._containers:
            self._host.cgroups.remove_parent()
        _answer(connection, message, None)
        self._loop.stopping = True

    def _find(self, message: wire.Message) -> Container:
        container = self._containers.get(message["id"])
        if container is None or container.status in _HIDDEN:
            raise LaunchError("missing", f"there is no container {message['id']!r}")
        return container

    def _forget(self, container_id: str) -> None:
        self._containers.pop(container_id, None)

    def _announce(self, container: Container) -> None:
        if container.exit is None or container.acknowledged or self._subscriber is None:
            return
        self._subscriber.send({"event": "exit", "id": container.id, **container.exit.as_message()})


#: Containers that nobody can use yet, or any more.
_HIDDEN: Final = frozenset({"creating", "disposing", "disposed"})


def _answer(
    connection: Connection, request: wire.Message, error: LaunchError | None, ok: dict[str, Any] | None = None
) -> None:
    if error is not None:
        connection.send({"seq": request.get("seq"), "error": error.as_message()})
    else:
        connection.send({"seq": request.get("seq"), "ok": ok or {}})


def _listen(path: str, loop: Loop, server: Server) -> None:
    """Serve a unix socket that only root can reach, replacing one that a dead launcher left."""
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(16)

    def accept() -> None:
        accepted, _ = listener.accept()
        Connection(accepted, loop, server.on_message)

    loop.watch(listener.fileno(), accept)


def _stop_on_signals(loop: Loop) -> None:
    """End the loop on SIGTERM and SIGINT: the handler alone would not wake it up."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def stop() -> None:
        loop.stopping = True

    loop.watch(woken, stop)


def _become_launcher(run_dir: str) -> int:
    """Take the place of the host's only launcher; return the lock's descriptor, or -1 if another one lives."""
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    lock = os.open(f"{run_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return -1
    return lock


def _options(argv: list[str]) -> dict[str, str]:
    """Return `--name value` pairs; no argparse, whose import would double this process's heap."""
    wanted = {"--socket", "--run-dir", "--state-dir", "--cgroup-parent"}
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    if set(options) != wanted or len(argv) != 2 * len(wanted):
        raise rejected(f"usage: launcher {' '.join(sorted(f'{name} VALUE' for name in wanted))}")
    return options


def main(argv: list[str]) -> int:
    """Run the launcher until it is told to stop."""
    try:
        options = _options(argv)
        # The spawning agent's descriptors are none of our business, and would stay open for as long as we live.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        # Before anything else: no process that this one clones may be traced from inside a container.
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
        if _become_launcher(options["--run-dir"]) < 0:
            raise rejected(f"another launcher serves {options['--run-dir']}")
        host = prepare(options["--run-dir"], options["--state-dir"], options["--cgroup-parent"])
    except LaunchError as error:
        print(f"argosy-launcher: {error.reason}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"argosy-launcher: cannot start: {error} (it must run as root of the host)", file=sys.stderr)
        return 2
    sc.preload()
    credentials.raise_own_limits()
    # From here on nothing can be imported: in a container, a path would lead into the image.
    sys.meta_path.clear()
    sys.path.clear()
    gc.collect()
    gc.freeze()
    gc.disable()
    loop = Loop()
    server = Server(host, loop)
    server.recover()
    _listen(options["--socket"], loop, server)
    _stop_on_signals(loop)

    def collect() -> None:
        gc.collect()
        loop.after(_COLLECT_PERIOD_S, collect)

    loop.after(_COLLECT_PERIOD_S, collect)
    loop.run()
    return 0
