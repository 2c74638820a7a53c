"""The servers that `run` measures: how each is found, started, known to be ready, and ended."""

import dataclasses
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_LIMIT_S = 20
PORT_SPAN = 20  # of consecutive ports that one setup may use
BUILD_ADVICE = "cmake --preset release && cmake --build --preset release"
NPM_ADVICE = "npm ci --omit=optional --prefix tests/bench"


class Failure(Exception):
    """A server or the load client failed; the text says which and why."""


def free_ports():
    """The first of PORT_SPAN free ports below the ephemeral range."""
    while True:
        base = random.randrange(20000, 32000)
        taken = False
        for port in range(base, base + PORT_SPAN):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    taken = True
                    break
        if not taken:
            return base


def accepts(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def answer(port, path):
    """The body of an answer with status 200, else None."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
            return response.read() if response.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None


def has_route(port):
    body = answer(port, "/routez")
    return body is not None and json.loads(body)["num_routes"] > 0


def has_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(str(path)) == 0


@dataclasses.dataclass
class Process:
    """core None: any core. counted: its CPU and memory are those of the server."""
    name: str
    argv: list
    ready: object  # a function without arguments
    core: object = None
    counted: bool = True


@dataclasses.dataclass
class Setup:
    """What the processes of one run may use. cores: one for each node."""
    base: int
    dir: Path
    cores: list
    build: Path


@dataclasses.dataclass
class Player:
    """processes(setup) and ports(setup), one for each node. own: it needs no load client, this is its program."""
    name: str
    target: str
    processes: object
    ports: object = lambda setup: [setup.base]
    needs: list = dataclasses.field(default_factory=list)  # (path, what to do when it is missing)
    arguments: str = ""
    own: object = None

    def check(self):
        for path, advice in self.needs:
            if not path or not Path(path).exists():
                raise Failure(f"{self.name}: {path or 'a program'} is missing: {advice}")


class Running:
    """The processes of a player, started and ready; ended on leaving the with block."""

    def __init__(self, player, cores, build):
        self.player, self.cores, self.build, self.started = player, cores, build, []

    def __enter__(self):
        self.holder = tempfile.TemporaryDirectory(prefix="bench-")
        setup = Setup(free_ports(), Path(self.holder.name), self.cores, self.build)
        try:
            self.start_all(self.player.processes(setup))
        except BaseException:
            self.__exit__()
            raise
        self.ports = self.player.ports(setup)
        return self

    def start_all(self, processes):
        """What is not counted is what others need: it is ready before they start. The nodes start together."""
        for counted in (False, True):
            some = [self.start(p) for p in processes if p.counted == counted]
            for item in some:
                self.wait_ready(*item)

    def start(self, process):
        pin = [] if process.core is None else ["taskset", "-c", str(process.core)]
        log = open(Path(self.holder.name) / f"{len(self.started)}.log", "w+b")
        child = subprocess.Popen([*pin, *map(str, process.argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 cwd=self.holder.name, env={**os.environ, "NODE_ENV": "production"})
        self.started.append((process, child, log))
        return self.started[-1]

    def wait_ready(self, process, child, log):
        limit = time.monotonic() + START_LIMIT_S
        while not process.ready():
            if child.poll() is not None:
                raise Failure(f"{process.name} ended at its start: {self.last_words(log)}")
            if time.monotonic() > limit:
                raise Failure(f"{process.name} was not ready in {START_LIMIT_S} s: {self.last_words(log)}")
            time.sleep(0.02)

    @staticmethod
    def last_words(log):
        log.seek(0)
        return log.read()[-600:].decode(errors="replace").strip() or "(it said nothing)"

    def ended(self):
        """What those said that are not there any more."""
        return "; ".join(f"{p.name} ended: {self.last_words(log)}" for p, child, log in self.started
                         if child.poll() is not None)

    def pids(self, counted=True):
        return [child.pid for process, child, _ in self.started if process.counted == counted]

    def __exit__(self, *_):
        for _, child, _ in reversed(self.started):
            child.terminate()
        for _, child, log in self.started:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            log.close()
        self.holder.cleanup()


# ---- what each of them is ----

def redis(setup):
    path = setup.dir / "redis.sock"
    return Process("redis-server", ["redis-server", "--port", "0", "--unixsocket", path, "--save", "",
                                    "--appendonly", "no", "--dir", setup.dir], lambda: has_socket(path),
                   counted=False)


def starling_nodes(nodes, arguments, has_agents=False):
    """starling-node processes that share port base; base+1+k is node k alone."""

    def node(setup, k):
        text = arguments.replace("{redis}", f"unix://{setup.dir}/redis.sock")
        argv = [setup.build / "bin/starling-node", "--port", setup.base, "--bind", "127.0.0.1", "--core",
                setup.cores[k % len(setup.cores)], *shlex.split(text)]
        if nodes > 1:
            siblings = ",".join(str(setup.dir / f"n{i}") for i in range(nodes) if i != k)
            argv += ["--node-port", setup.base + 1 + k, "--name", f"n{k}", "--mesh", setup.dir / f"n{k}",
                     "--siblings", siblings]
        if has_agents:
            argv += ["--agent-port", setup.base + 9 + k, "--agents", setup.dir / f"agents{k}"]
        port = setup.base + 1 + k if nodes > 1 else setup.base
        return Process(f"starling node {k}", argv, lambda: answer(port, "/readyz") is not None,
                       setup.cores[k % len(setup.cores)])

    def processes(setup):
        return [node(setup, k) for k in range(nodes)] + ([redis(setup)] if "{redis}" in arguments else [])

    return processes


def own_ports(nodes):
    return lambda setup: [setup.base + 1 + k for k in range(nodes)]


def two(make):
    """Two processes of which each has its own port and core."""
    return lambda setup: [make(setup, k, setup.base + 1 + k, setup.cores[k % len(setup.cores)]) for k in range(2)]


def bare_node(setup, k, port, core):
    link = ["--link", setup.base + 1] if k == 1 else []
    return Process(f"bare {k}", [setup.build / "bench/bare", "--port", port, *link], lambda: accepts(port), core)


def socketio_worker(adapter):
    def make(setup, k, port, core):
        return Process(f"socketio worker {k}", ["node", HERE / "socketio_server.mjs", port, adapter,
                                                setup.dir / "redis.sock"], lambda: accepts(port), core)
    return lambda setup: [redis(setup), *two(make)(setup)]


def nats_node(server):
    def make(setup, k, port, core):
        monitor = setup.base + 7 + k
        file = setup.dir / f"nats{k}.conf"
        file.write_text(f"""host: 127.0.0.1
port: {setup.base + 3 + k}
http: "127.0.0.1:{monitor}"
server_name: n{k}
websocket {{ host: 127.0.0.1, port: {port}, no_tls: true, compression: false }}
cluster {{ name: bench, host: 127.0.0.1, port: {setup.base + 5 + k}, routes: ["nats://127.0.0.1:{setup.base + 6 - k}"] }}
""")
        return Process(f"nats-server {k}", [server, "-c", file], lambda: has_route(monitor) and accepts(port), core)
    return two(make)


def find_nats(build):
    """The installed nats-server, or the one of Debian's package, unpacked below the build directory: installing it
    would start a service."""
    found = shutil.which("nats-server")
    folder = build / "bench" / "nats"
    unpacked = folder / "usr/sbin/nats-server"
    if found or unpacked.exists() or not shutil.which("apt-get"):
        return found or unpacked
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", "nats-server"], cwd=folder, check=False, stderr=subprocess.DEVNULL)
    for package in folder.glob("nats-server_*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=False)
    return unpacked


def zmq_pair(build, cores):
    def command(inflight, seconds, warmup):
        return [build / "bench/zmq_pair", inflight, warmup, seconds, cores[0], cores[-1]]
    return command


def known(options):
    """Players by table: one node, two nodes, and the tables of Starling alone."""
    build, variants = options.build, {"starling": options.starling_args}
    variants.update(text.partition("=")[::2] for text in options.variant)
    node = [(build / "bin/starling-node", BUILD_ADVICE)]
    bare = [(build / "bench/bare", BUILD_ADVICE)]
    packages = [(HERE / "node_modules" / name, NPM_ADVICE)
                for name in ("socket.io", "@socket.io/redis-adapter", "@socket.io/redis-streams-adapter", "redis")]
    redis_need = (shutil.which("redis-server"), "apt-get install redis-server")

    def starlings(nodes, ports, has_agents=False):
        return [Player(name, "starling", starling_nodes(nodes, text, has_agents), ports,
                       node + ([redis_need] if "{redis}" in text else []), text) for name, text in variants.items()]

    def nats(ports):
        return Player("nats", "nats", nats_node(options.nats), ports,
                      [(options.nats, "apt-get download nats-server did not bring it; apt-get install nats-server")])

    def socketio(adapter):
        return Player(f"socketio-{adapter}", "socketio", socketio_worker(adapter), own_ports(2),
                      [*packages, redis_need])

    return {
        "one": [
            Player("bare", "bare", lambda s: [Process("bare", [build / "bench/bare", "--port", s.base],
                                                      lambda: accepts(s.base), s.cores[0])], needs=bare),
            *starlings(1, lambda s: [s.base]),
            Player("socketio", "socketio", lambda s: [Process(
                "socketio", ["node", HERE / "socketio_server.mjs", s.base], lambda: accepts(s.base), s.cores[0])],
                   needs=packages[:1]),
        ],
        "two": [
            Player("bare", "bare", two(bare_node), own_ports(2), bare),
            Player("libzmq", "libzmq", lambda s: [], needs=[(build / "bench/zmq_pair", BUILD_ADVICE)],
                   own=zmq_pair(build, options.cluster_cores)),
            *starlings(2, own_ports(2)),
            nats(own_ports(2)),
            socketio("redis"),
            socketio("streams"),
        ],
        # Where agents are, by ipc and by tcp, then the port of clients; of NATS the ports without WebSocket.
        "agents": [*starlings(2, lambda s: [*(f"ipc://{s.dir}/agents{k}" for k in range(2)),
                                            *(f"tcp://127.0.0.1:{s.base + 9 + k}" for k in range(2)), s.base + 1], True),
                   nats(lambda s: 2 * [s.base + 3, s.base + 4])],
        "mesh": starlings(2, own_ports(2)),
        "spread2": starlings(2, lambda s: [s.base]),
        "spread4": starlings(4, lambda s: [s.base]),
    }
