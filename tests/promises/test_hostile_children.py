"""A child that was taken over: nothing it tries gets out, on a kernel with the walls.

Each attack is the body of an engine. It takes the audit hook for beaten, and goes to the
kernel by ctypes: what holds here holds against code in any language. What the attack
could reach is looked at from outside, and first with the same calls by this process, so
that an attack that is broken itself is no proof.
"""

import asyncio
import contextlib
import errno
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import media
import pytest
import pytest_asyncio
from bossbot_plugins import _landlock, _seccomp, _walls
from bossbot_plugins._files import size_of
from conftest import PARTS, make_job, our_plugins, spread

import bossbot
from bossbot import App, Job, JobFailed, Settings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not _landlock.abi(), reason="no Landlock here"),
    pytest.mark.skipif(not _seccomp.available(), reason="no seccomp here"),
]
signals_stay_in = pytest.mark.skipif(_landlock.abi() < 6, reason="before Linux 6.12")

SECRET = "words-of-the-owner-alone"
ENGINE = (Path(__file__).parent / "plugins" / "attacker.py").read_text("utf-8")
KNOWS = 'return "toy" in url'  # in its place, an attack may do other things


@dataclass
class Prey:
    """A bot with what an attacker wants."""

    home: Path  # what a checkout has
    app: App
    job: Job = field(init=False)  # of the last attack

    @property
    def data(self) -> Path:
        return self.app.settings.data_dir

    async def attack(self, body: str, supports: str = KNOWS) -> Any:
        """What the attack tells."""
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        code = ENGINE.replace("    tell(None)", indented).replace(KNOWS, supports)
        (self.home / "plugins" / "toy.py").write_text(code)
        self.job = make_job(url="https://toy.example/", engine="toy", claim_number=1)
        fetched = await self.app.worker.fetch(self.job, lambda progress: None)
        return json.loads(fetched.facts["text"])


@contextlib.asynccontextmanager
async def a_prey(folder: Path, data: Path, **settings: Any) -> AsyncIterator[Prey]:
    home = folder / "checkout"
    (home / "plugins").mkdir(parents=True)
    (home / ".env").write_text(SECRET)
    (home / "plugins" / "own.py").write_text(f"# {SECRET}\n")
    (home / "plugins" / "toy.py").write_text(ENGINE.replace(KNOWS, "return False"))
    values = spread(
        {
            "data_dir": data,
            "plugins_dir": home / "plugins",
            "retention__min_free_space": 0,
            **settings,
        }
    )
    app = App(Settings(**values), our_plugins(*PARTS))
    app.plugins.load()
    bossbot.prepare_data(data)
    (data / "bossbot.db").write_text(SECRET)
    other = data / "temp" / "other" / "1" / "home"
    other.mkdir(parents=True)
    (other / "cookies.txt").write_text(SECRET)
    (data / "cache" / "elsewhere").mkdir()
    (data / "cache" / "elsewhere" / "cache").write_text(SECRET)
    try:
        yield Prey(home, app)
    finally:
        await app.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def prey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prey]:
    folder = tmp_path_factory.mktemp("prey")
    async with a_prey(folder, folder / "data") as prey:
        yield prey


# Files


def secrets_of(prey: Prey) -> list[Path]:
    found = [prey.home / ".env", prey.home / "plugins" / "own.py"]
    return found + [
        path
        for path in prey.data.rglob("*")
        if path.is_file() and SECRET in path.read_text(errors="replace")
    ]


async def test_secrets_are_not_read(prey: Prey, tmp_path: Path) -> None:
    paths = [str(path) for path in secrets_of(prey)]
    assert len(paths) == 5
    link = prey.home / "link"
    link.symlink_to(prey.home / ".env")
    paths += [str(link), "/etc/shadow", "/etc/passwd", str(Path.home() / ".bashrc")]
    body = f"""
        results = []
        for path in {paths!r}:
            inside = request.folder / "link"
            inside.symlink_to(path)
            results.append([
                failed(lambda: open(path)), failed(lambda: open(inside)),
                call(257, ctypes.c_int(-100), path.encode(), 0),
                failed(lambda: os.listdir(os.path.dirname(path))),
                failed(lambda: os.link(path, request.folder / "hard")),
                failed(lambda: os.rename(path, request.folder / "moved")),
            ])
            inside.unlink()
        tell(results)
        """
    for result in await prey.attack(body):
        assert set(result[:2]) <= {"EACCES", "ENOENT"}, result
        assert result[2] in (-13, -2)
        assert all(result[3:]), result
    assert all(path.exists() for path in secrets_of(prey))


async def test_nothing_is_written_elsewhere(prey: Prey, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    places = [
        *(tmp_path, prey.home, prey.home / "plugins", prey.data, prey.data / "temp"),
        *(prey.data / "cache", prey.data / "cache" / "elsewhere", Path("/dev/shm")),
        *(Path("/tmp"), Path("/var/tmp"), Path(sys.prefix), Path.home()),
        *(Path(_landlock.__file__).parent, prey.data / "temp" / "other" / "1"),
    ]
    files = [tmp_path / "there", prey.home / ".env", prey.data / "bossbot.db"]
    files += [prey.home / "plugins" / "toy.py", Path(bossbot.__file__)]
    body = f"""
        own = request.folder / "own"
        own.write_text("x")
        tried = []
        for place in map(Path, {[str(place) for place in places]!r}):
            at = place / "hostile-was-here"
            tried += [
                failed(lambda: at.write_text("x")), failed(at.mkdir),
                failed(lambda: at.symlink_to("/")), failed(lambda: os.link(own, at)),
                failed(lambda: os.rename(own, at)), failed(lambda: os.mkfifo(at)),
                failed(lambda: os.rmdir(place)), call(83, str(at).encode(), 0o700),
            ]
        for file in map(Path, {[str(file) for file in files]!r}):
            tried += [
                failed(lambda: open(file, "a")), failed(lambda: os.truncate(file, 0)),
                failed(file.unlink), failed(lambda: os.replace(own, file)),
            ]
            os.utime(file, (0, 0)) if file.exists() else None
            call(90, str(file).encode(), 0)  # chmod
            call(268, ctypes.c_int(-100), str(file).encode(), 0)
            failed(lambda: os.chmod(file, 0))
            failed(lambda: os.chown(file, 1, 1))
        tell(tried)
        """
    before = [(file.read_bytes(), *status(file)) for file in files[:3]]
    tried = await prey.attack(body)
    assert None not in tried and 0 not in tried
    assert [(file.read_bytes(), *status(file)) for file in files[:3]] == before
    assert not [place for place in places if (place / "hostile-was-here").exists()]


def status(path: Path) -> tuple[int, int, float]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime


async def test_thread_from_before_the_walls_is_not_left_outside(prey: Prey) -> None:
    """Code that took the process over could have it read for it."""
    await prey.attack("tell(1)")  # else the server, which has no walls, imports it
    body = f"tell(open({str(prey.home / '.env')!r}).read())"
    begun = (
        "\n\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    with pytest.raises(JobFailed) as caught:
        await prey.attack(body, f"return True{begun}")
    assert "left a thread running" in caught.value.detail


async def test_own_folders_are_its_own(prey: Prey) -> None:
    body = """
        for place in (request.folder, Path.home(), request.cache_dir):
            (place / "folder").mkdir()
            file = place / "folder" / "file"
            file.write_text("x")
            file.chmod(0o751)
            assert file.stat().st_mode & 0o777 == 0o751
            os.rename(file, place / "file")
            shutil.rmtree(place / "folder")
            shutil.copy2(place / "file", place / "copy")
            (place / "copy").unlink()
            (place / "file").unlink()
        tell([failed(lambda: os.mkfifo("pipe")), failed(lambda: os.mknod("node", 0o60600))])
        """
    assert None not in await prey.attack(body)


@pytest.fixture
def fresh_places() -> Iterator[None]:
    _walls.places.cache_clear()
    yield
    _walls.places.cache_clear()


@pytest.mark.parametrize("where", ["lib", "site-packages", "share"])
async def test_data_inside_what_is_readable_is_not(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a checkout in /usr/share, or data in the folder of a venv."""
    base = tmp_path / "python" / where
    (base / "deep" / "data").mkdir(parents=True)
    (base / "beside").mkdir()
    (base / "beside" / "module").write_text("x")
    (base / "out").symlink_to(base / "deep" / "data")
    monkeypatch.setattr(sys, "path", [*sys.path, str(base)])
    data = base / "deep" / "data"
    (data / "secret").write_text(SECRET)
    given = _walls.readable(_walls.told(), [], [str(base / "out")])
    inside = [path for path in given if path.startswith(str(tmp_path))]
    assert inside == [str(base / "beside")]


@pytest.mark.usefixtures("fresh_places")
async def test_venv_that_is_the_checkout_is_read_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bin", "lib", "data", "plugins"):
        (tmp_path / name).mkdir()
    (tmp_path / ".env").write_text(SECRET)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    given = _walls.readable(_walls.told(), [], [str(tmp_path)])
    inside = {Path(path).name for path in given if path.startswith(str(tmp_path))}
    assert {"bin", "lib"} <= inside
    assert not inside & {"data", "plugins", ".env", tmp_path.name}


# Other processes


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the owner's."""
    environment = {**os.environ, "TOKEN": SECRET}
    process = subprocess.Popen(["sleep", "600"], env=environment)
    yield process
    process.kill()
    process.wait()


async def test_memory_and_environment_of_others_are_closed(
    prey: Prey, victim: subprocess.Popen[bytes]
) -> None:
    server: Any = prey.app.runner
    await prey.attack("tell(1)")
    pids = [os.getpid(), server._server.pid, victim.pid, 1]
    assert SECRET in Path(f"/proc/{victim.pid}/environ").read_text()
    body = f"""
        results = []
        vector = ctypes.create_string_buffer(struct.pack("QQ", mmap.PAGESIZE, 1))
        for pid in {pids!r}:
            for name in ("environ", "mem", "maps", "fd", "cwd/.env", "root/etc/passwd"):
                path = f"/proc/{{pid}}/{{name}}"
                results.append(failed(lambda: open(path, "rb").read(1)))
            results.append(failed(lambda: os.listdir(f"/proc/{{pid}}/fd")))
            results.append(call(101, L(16), L(pid), None, None))  # ptrace: attach
            results.append(call(101, L(0x4206), L(pid), None, None))  # and seize
            results.append(call(310, L(pid), vector, L(1), vector, L(1), L(0)))
            results.append(call(302, L(pid), L(7), vector, None))  # prlimit64
            pidfd = call(434, L(pid), L(0))
            results.append(pidfd if pidfd < 0 else call(438, L(pidfd), L(0), L(0)))
        tell(results)
        """
    results = await prey.attack(body)
    assert all(isinstance(one, str) or (one and one < 0) for one in results), results


async def test_bot_and_its_server_are_hidden(prey: Prey) -> None:
    runner: Any = prey.app.runner
    await prey.attack("tell(1)")
    for pid in (os.getpid(), runner._server.pid):
        if os.getuid():
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    libc = _landlock.libc()
    assert libc.prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
    body = "tell([libc.prctl(3, 0, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0)])"
    assert await prey.attack(body) == [0, 1]  # and no_new_privs


@signals_stay_in
async def test_signals_stay_in(prey: Prey, victim: subprocess.Popen[bytes]) -> None:
    runner: Any = prey.app.runner
    await prey.attack("tell(1)")
    pids = [os.getpid(), runner._server.pid, victim.pid]
    body = f"""
        results = []
        for pid in {pids!r}:
            for number in (0, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
                results.append(failed(lambda: os.kill(pid, number)))
                results.append(call(62, L(pid), L(number)))
                results.append(call(62, L(-pid), L(number)))
                results.append(call(200, L(pid), L(number)))
                results.append(call(234, L(pid), L(pid), L(number)))
        tell([*results, call(62, L(-1), L(9))])
        """
    results = await prey.attack(body)
    assert all(isinstance(one, str) or (one and one < 0) for one in results), results
    assert victim.poll() is None


@pytest.fixture
def modest() -> Iterator[subprocess.Popen[bytes]]:
    """A process without rights of root, even if the owner is root."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = ["sleep", "600"]
    process = subprocess.Popen(command if os.getuid() else [*drop, *command])
    yield process
    process.kill()
    process.wait()


async def test_turns_of_others_are_their_own(
    prey: Prey, modest: subprocess.Popen[bytes]
) -> None:
    """A process may be less urgent itself, but not all that its user runs."""
    before = os.getpriority(os.PRIO_PROCESS, modest.pid)
    body = f"""
        tell([call(141, L(2), L(0), L({before + 1})),  # setpriority: the user
              call(141, L(1), L(0), L({before + 1})),  # the group
              call(141, L(0), L({modest.pid}), L({before + 1})),
              call(251, L(3), L(0), L(3 << 13)),  # ioprio_set: the user
              call(251, L(1), L({modest.pid}), L(3 << 13)),
              call(141, L(0), L(0), L({before + 1}))])
        """
    *refused, own = await prey.attack(body)
    assert refused == [-1] * 5
    assert own == 0
    assert os.getpriority(os.PRIO_PROCESS, modest.pid) == before


async def test_no_descriptor_has_signals_sent_to_others(
    prey: Prey, victim: subprocess.Popen[bytes]
) -> None:
    """Not even where Landlock does not guard them."""
    body = f"""
        reading, writing = os.pipe()
        owner = struct.pack("ii", 1, {victim.pid})
        number = struct.pack("i", {victim.pid})
        tell([call(72, L(reading), L(8), L({victim.pid})),  # F_SETOWN
              call(72, L(reading), L(15), owner),  # F_SETOWN_EX
              call(16, L(reading), L(0x8901), number),  # FIOSETOWN
              call(16, L(reading), L(0x8902), number),  # SIOCSPGRP
              call(16, L(0), L(0x5412), b"x")])  # TIOCSTI: a key of a terminal
        """
    assert await prey.attack(body) == [-1] * 5
    assert victim.poll() is None


async def test_no_lease_lets_others_wait_for_a_file(prey: Prey) -> None:
    body = """
        with open(request.cache_dir / "leased", "w") as file:
            tell(call(72, L(file.fileno()), L(1024), L(1)))  # F_SETLEASE, F_WRLCK
        """
    assert await prey.attack(body) == -1


async def test_memory_is_had_only_where_it_is_counted(prey: Prey) -> None:
    body = """
        def shared(flags, file=-1):
            return failed(lambda: mmap.mmap(file, 1 << 20, flags))
        own = open("own", "w+b")
        own.truncate(1 << 20)
        tell([call(319, b"name", L(0)), call(447, L(0)),  # memfd_create, memfd_secret
              shared(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS), shared(0x23),
              failed(lambda: open("/dev/zero", "r+b")),
              shared(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
              shared(mmap.MAP_SHARED, own.fileno())])
        """
    made, secret, *mapped = await prey.attack(body)
    assert (made, secret) == (-38, -38)
    assert mapped == ["EPERM", "EPERM", "EACCES", None, None]


async def test_folders_can_be_removed_again(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However deep they are, and by a bot that is not root."""
    # Else it is ended when it takes longer than a second, for what is too deep.
    unlimited = prey.app.settings.model_copy(update={"max_job_size": 0})
    monkeypatch.setattr(prey.app, "settings", unlimited)
    body = """
        tried = [failed(lambda: os.mkdir("closed", mode)) for mode in (0, 0o300, 0o577)]
        tried += [call(258, L(-100), b"closed", L(0o077)), call(95, L(0o777))]
        os.chdir(request.folder)
        for name in ["d" * 250] * 30 + ["d"] * 1500:
            os.mkdir(name)
            os.chdir(name)
        Path("deep").write_bytes(bytes(1000))
        tell(tried)
        """
    try:
        assert await prey.attack(body) == ["EPERM", "EPERM", "EPERM", -1, -1]
        folder = prey.data / "temp" / prey.job.id
        assert size_of(folder, 2**60) >= 2**60 > size_of(folder)
    finally:  # pytest could not remove them
        await prey.app.storage.forget_attempt(prey.job)
    assert not folder.exists()


async def test_privileges_are_gone(prey: Prey) -> None:
    body = """
        words = Path("/proc/self/status").read_text()
        rights = {line.split(":")[0]: line.split()[1] for line in words.splitlines()
                  if line.startswith("Cap")}
        fresh = ctypes.create_string_buffer(b"/tmp")
        tell([rights, call(165, fresh, fresh, fresh, L(4096), None),  # mount
              call(272, L(0x10000000)), call(272, L(0x40000000)),  # unshare
              call(161, b"/"), call(56, L(0x10000011), None, None, None, None),
              call(169, L(0), L(0), L(0), None), call(175, None, L(0), None),
              call(321, L(0), None, L(0)), call(425, L(8), None),
              call(250, L(0), L(-4), L(1)), call(298, None, L(0), L(-1), L(-1), L(0)),
              call(29, L(1), L(4096), L(0o1600))])
        """
    rights, *tried = await prey.attack(body)
    if os.getuid():  # what an ordinary user may not gain anyway
        del rights["CapBnd"]
    assert {int(right, 16) for right in rights.values()} <= {0, 2}, rights
    assert all(one < 0 for one in tried), tried


# The network


@dataclass
class Service:
    """What runs inside and must not be reached."""

    port: int = 0
    hits: int = 0


@pytest_asyncio.fixture(loop_scope="module")
async def service() -> AsyncIterator[Service]:
    service = Service()

    def hit(reader: Any, writer: asyncio.StreamWriter) -> None:
        service.hits += 1
        writer.close()

    server = await asyncio.start_server(hit, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    async with server:
        yield service


async def test_nothing_is_dialled_past_the_bot(
    prey: Prey, service: Service, tmp_path: Path
) -> None:
    paths = [str(tmp_path / "stream"), "\0abstract-of-the-owner"]
    servers = []
    for path in paths:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        servers.append(server)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(tmp_path / "datagrams"))
    datagrams.setblocking(False)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setblocking(False)
    body = f"""
        at = address("127.0.0.1", {service.port})
        udp = address("127.0.0.1", {udp.getsockname()[1]})
        results = []
        for family, kind, protocol in [
            (2, 1, 0), (2, 1, 6), (2, 2, 0), (2, 3, 1), (2, 3, 255), (2, 1, 262),
            (2, 1, 132), (2, 2, 136), (10, 2, 0), (16, 3, 0), (17, 3, 768), (1, 2, 0),
            (40, 1, 0), (38, 5, 0), (2, 2 | 2048, 0), (1, 1, 0), (1, 5, 0),
        ]:
            one = call(41, L(family), L(kind), L(protocol))
            if one < 0:
                continue
            results += [
                call(42, L(one), at, L(16)), call(49, L(one), at, L(16)),
                call(50, L(one), L(1)),
                call(44, L(one), b"x", L(1), L(0), at, L(16)),
                call(44, L(one), b"x", L(1), L(0x20000000), at, L(16)),
                call(44, L(one), b"x", L(1), L(0), udp, L(16)),
            ]
            for path in {[path.encode() for path in paths]!r}:
                name = struct.pack("H", 1) + path
                results.append(call(42, L(one), name, L(len(name))))
            vector = ctypes.create_string_buffer(b"x" * 8)
            iov = ctypes.create_string_buffer(
                struct.pack("QQ", ctypes.addressof(vector), 8))
            target = ctypes.create_string_buffer(at)
            message = ctypes.create_string_buffer(struct.pack(
                "QQQQQQQ", ctypes.addressof(target), 16, ctypes.addressof(iov), 1,
                0, 0, 0))
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            for flags in (0, 0x20000000):
                results.append(call(46, L(one), message, L(flags)))
        pair = (ctypes.c_int * 2)()
        results.append(call(53, L(1), L(2), L(0), pair))  # of datagrams
        tell(results)
        """
    results = await prey.attack(body)
    assert len(results) > 20
    assert all(one < 0 for one in results), results
    assert service.hits == 0
    for server in servers:
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    for server in (datagrams, udp):
        with pytest.raises(BlockingIOError):
            server.recv(1)
    for server in (*servers, datagrams, udp):
        server.close()


async def test_bot_does_not_dial_what_it_should_not(
    prey: Prey, service: Service
) -> None:
    questions = [
        ["dial", host, service.port]
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::1", "localhost")
    ]
    body = f"""
        import gc
        [line] = [s for s in gc.get_objects() if isinstance(s, socket.socket)
                  and s.fileno() >= 0 and s.type == socket.SOCK_SEQPACKET]
        answers = []
        for question in {questions!r}:
            line.send(json.dumps(question).encode())
            answer, found, *_ = socket.recv_fds(line, 1000, 1)
            answers.append([json.loads(answer), len(found)])
        tell(answers)
        """
    assert await prey.attack(body) == [[13, 0]] * len(questions)
    assert service.hits == 0


async def test_bot_does_not_answer_without_end(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner: Any = prey.app.runner
    names = runner._new_child.__globals__["Broker"]._read.__globals__
    monkeypatch.setitem(names, "MAX_QUESTIONS", 50)
    body = """
        import gc
        [line] = [s for s in gc.get_objects() if isinstance(s, socket.socket)
                  and s.fileno() >= 0 and s.type == socket.SOCK_SEQPACKET]
        answers = 0
        for question in (["dial", "0.0.0.0", 1], ["look up", "127.0.0.1", 1, 0, 0, 0, 0]):
            for _ in range(1000):
                with contextlib.suppress(OSError):
                    line.send(json.dumps(question).encode())
                    answers += bool(socket.recv_fds(line, 1000, 1)[0])
        tell(answers)
        """
    assert await prey.attack(body) <= 50
    assert await prey.attack("tell(2)") == 2


@pytest.mark.parametrize(
    "question",
    [
        "b'no json'",
        "b'[' * 2000",
        "b'[' * 200000",
        """b'["dial", 5, "x"]'""",
        """b'["dial", "1.1.1.1", 99999999]'""",
        """b'["look up"]'""",
        """b'["look up", 1, 2, 3, 4, 5, 6]'""",
        """b'["chmod", 511]'""",
        "b'5'",
    ],
)
async def test_nonsense_to_the_broker_harms_nobody(prey: Prey, question: str) -> None:
    body = f"""
        import gc
        [line] = [s for s in gc.get_objects() if isinstance(s, socket.socket)
                  and s.fileno() >= 0 and s.type == socket.SOCK_SEQPACKET]
        failed(lambda: line.send({question}))
        line.settimeout(1)
        failed(lambda: line.recv(1000))
        tell(1)
        """
    assert await prey.attack(body) == 1
    assert await prey.attack("tell(2)") == 2


async def test_broker_changes_no_file_that_is_only_read(prey: Prey) -> None:
    body = """
        mode = os.stat(sys.executable).st_mode
        with open(sys.executable) as file, open("/dev/null", "r+b", 0) as null:
            tell([failed(lambda: os.fchmod(file.fileno(), 0)),
                  failed(lambda: os.fchmod(null.fileno(), 0)),
                  mode == os.stat(sys.executable).st_mode])
        """
    assert await prey.attack(body) == ["EPERM", "EPERM", True]


async def test_name_that_leads_inside_is_refused_in_words(prey: Prey) -> None:
    body = """
        import urllib.request
        tell(failed(lambda: urllib.request.urlopen("http://localhost/")))
        """
    with pytest.raises(JobFailed) as caught:
        await prey.attack(body)
    assert "private address" in str(caught.value)


# What outlives, and what multiplies


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


LEAVE = {
    "setsid": "os.setsid()",
    "setsid by the kernel's number": "call(112)",
    "setpgid": "os.setpgid(0, 0)",
    "twice": "os.setsid(); os.fork() and os._exit(0); os.setsid()",
}


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("end", ["tell(1)", "os._exit(0)", "time.sleep(600)"])
async def test_nothing_outlives_its_attempt(prey: Prey, leave: str, end: str) -> None:
    note = prey.data / "cache" / "other" / "pid"
    note.unlink(missing_ok=True)
    body = f"""
        if not os.fork():
            for number in range(1, 32):
                failed(lambda: signal.signal(number, signal.SIG_IGN))
            try:
                {leave}
            except BaseException:
                pass
            (request.cache_dir / "new").write_text(str(os.getpid()))
            os.rename(request.cache_dir / "new", request.cache_dir / "pid")
            while True:
                time.sleep(600)
        while not (request.cache_dir / "pid").exists():
            time.sleep(0.01)
        {end}
        """
    attack = asyncio.create_task(prey.attack(body))
    async with asyncio.timeout(60):
        while not note.exists():
            await asyncio.sleep(0.01)
    pid = int(note.read_text())
    if "600" in end:
        attack.cancel()
    await asyncio.wait([attack])
    with contextlib.suppress(JobFailed, asyncio.CancelledError):
        attack.result()
    async with asyncio.timeout(60):
        while alive(pid):
            await asyncio.sleep(0.01)


async def test_bomb_is_put_out(prey: Prey) -> None:
    body = """
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)
        """
    before = _walls.all_tasks()
    with pytest.raises(JobFailed):
        await asyncio.wait_for(prey.attack(body), 60)
    assert await prey.attack("tell(2)") == 2
    async with asyncio.timeout(60):
        while _walls.all_tasks() - before > 50:
            await asyncio.sleep(0.05)


async def test_children_end_when_epoll_watches_no_more(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one of them has used up what all processes of a user share."""
    runner: Any = prey.app.runner
    walls = runner._count_tasks.__globals__["_walls"]
    assert walls.may_watch()

    def full() -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(walls, "select", SimpleNamespace(epoll=full))
        with pytest.raises(JobFailed):
            await asyncio.wait_for(prey.attack("time.sleep(600)"), 60)
    assert await prey.attack("tell(2)") == 2


async def test_limits_are_set(prey: Prey) -> None:
    body = """
        import resource as r
        tell([r.getrlimit(kind)[1] for kind in
              (r.RLIMIT_CORE, r.RLIMIT_NOFILE, r.RLIMIT_CPU, r.RLIMIT_NPROC)])
        """
    core, files, cpu_s, tasks = await prey.attack(body)
    assert core == 0 and 64 <= files <= 4096 and 0 < cpu_s < 1000
    assert 1024 < tasks < 100_000


async def test_bot_may_have_more_open_than_a_child(prey: Prey) -> None:
    """Else what one child hands to itself keeps the bot from handing on anything."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert few == most
    body = """
        reading, writing = os.pipe()
        pairs, handed = [], 0
        with contextlib.suppress(OSError):
            while handed < 20_000:
                pairs.append(socket.socketpair())
                socket.send_fds(pairs[-1][0], [b"x"], [reading] * 250)
                handed += 250
        tell(handed)
        """
    assert 0 < await prey.attack(body) < 2000


async def test_link_is_asked_about_inside_the_walls(prey: Prey) -> None:
    note = prey.home / "plugins" / "asked"
    supports = f"return not failed(lambda: open({str(prey.home / '.env')!r}))"
    await prey.attack("tell(1)", supports)
    assert await prey.app.runner.supports(["https://toy.example/"]) == [""]
    supports = f"return not failed(lambda: open({str(note)!r}, 'w'))"
    await prey.attack("tell(1)", supports)
    assert await prey.app.runner.supports(["https://toy.example/"]) == [""]
    assert not note.exists()


async def test_fresh_interpreter_has_the_same_walls(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prey.app.runner, "can_fork", False)
    monkeypatch.setattr(prey.app.runner, "_control", None)
    monkeypatch.setattr(prey.app.runner, "_server", None)
    body = f"""
        tell([failed(lambda: open({str(prey.home / ".env")!r})),
              call(42, L(call(41, L(2), L(1), L(0))), address("127.0.0.1", 9), L(16)),
              call(62, L({os.getpid()}), L(0))])
        """
    env, dialled, signalled = await prey.attack(body)
    assert (env, dialled) == ("EACCES", -13) and signalled < 0


# What must go on working


async def test_helper_programs_work_inside_the_walls(
    prey: Prey, media_folder: Path
) -> None:
    cache = prey.data / "cache" / "other"
    cache.mkdir(exist_ok=True)
    shutil.copy(media.video(media_folder), cache / "video.mp4")
    body = """
        results = {}
        def run(name, *argv):
            if name in request.programs:
                done = subprocess.run([request.programs[name], *argv], text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                results[name] = [done.returncode, done.stdout[-300:]]
        import resource
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        video, out = request.cache_dir / "video.mp4", request.folder / "out.mkv"
        run("ffprobe", "-v", "error", "-show_format", str(video))
        run("ffmpeg", "-v", "error", "-nostdin", "-i", str(video), "-c", "copy", str(out))
        code = "console.log(6 * 7)"
        (Path.home() / "code.js").write_text(code)
        run("deno", "run", "--no-remote", str(Path.home() / "code.js"))
        run("node", "-e", code)
        tell(results)
        """
    results = await prey.attack(body)
    assert {code for code, _ in results.values()} == {0}, results
    for name in results.keys() & {"deno", "node"}:
        assert results[name][1] == "42\n"
    assert {"ffmpeg", "ffprobe"} <= results.keys()


async def test_javascript_has_no_network(prey: Prey, service: Service) -> None:
    """Whatever the runtime allows: yt-dlp gives it no network, and the kernel neither."""
    body = f"""
        results = {{}}
        def run(name, *argv):
            if name in request.programs:
                done = subprocess.run([request.programs[name], *argv], text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                results[name] = done.stdout[-300:]
        import resource
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        code = "require('net').connect({service.port}, '127.0.0.1')"
        run("node", "-e", code + ".on('error', error => console.log(error.code))")
        code = "Deno.connect({{port: {service.port}}}).catch(e => console.log(e.name))"
        (Path.home() / "code.js").write_text(code)
        run("deno", "run", "--allow-net", str(Path.home() / "code.js"))
        tell(results)
        """
    results = await prey.attack(body)
    assert results and service.hits == 0
    wanted = {"node": "EACCES\n", "deno": "PermissionDenied\n"}
    assert results.items() <= wanted.items()


async def test_walls_that_stand_are_told() -> None:
    assert all(isinstance(stands, bool) for stands in _walls.standing().values())
    assert _walls.standing()["files (Landlock)"]


async def test_link_is_asked_about_inside_the_walls_by_what_downloads_it(
    prey: Prey,
) -> None:
    supports = f"return bool(failed(lambda: open({str(prey.home / '.env')!r})))"
    await prey.attack("tell(1)", supports)
    job = make_job(url="https://toy.example/", engine="", claim_number=1)
    fetched = await prey.app.worker.fetch(job, lambda progress: None)
    assert fetched.facts["text"] == "1"
