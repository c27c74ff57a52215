"""Two hosts of a Ray cluster on one machine: each a network namespace, with a cable (veth) between them."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PORT = 6379
SECONDS = 120


def why_not() -> str:
    """Return why there can be no two hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip here: `apt-get install iproute2` brings it"
    name = f"pedigree-{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"network namespaces cannot be made here ({done.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


@dataclass(frozen=True)
class Host:
    """A host that can be lost and come back; files are those of this machine, as on a folder that all hosts see."""

    name: str
    """Of its network namespace."""
    address: str
    head: str
    """Address of the host that Ray's head runs on."""
    folder: Path
    """Of its Ray's own files; of few letters, for the names of sockets have to be short."""
    token: str
    """That Ray asks for on every connection."""

    @property
    def env(self) -> dict[str, str]:
        """What Ray and a driver need in their environment; one thread a worker, so that bits can be compared."""
        return os.environ | {
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_ADDRESS": f"{self.head}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # whatever this process has set for a cluster of its own
            "RAY_USE_TLS": "0",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def popen(self, arguments: list[str], cwd: Path, log: Path, **env: str) -> subprocess.Popen[bytes]:
        """Start a program on this host, in a session of its own, which writes what it says to `log`."""
        with log.open("w") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *arguments],
                cwd=cwd,
                env=self.env | env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, arguments: list[str], cwd: Path, log: Path, seconds: float = SECONDS, **env: str) -> None:
        """Run a program on this host to its end, which has to be a good one."""
        code = self.popen(arguments, cwd, log, **env).wait(seconds)
        assert code == 0, f"{arguments} on {self.address}: exit code {code}\n{log.read_text()}"

    def start(self) -> None:
        """Start Ray on this host, anew after `kill`, with one CPU, so that two workers need both hosts."""
        self._cable("up")
        if self.address == self.head:
            role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            role = [f"--address={self.head}:{PORT}"]
        ray = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start"),
            *(f"--node-ip-address={self.address}", "--num-cpus=1", "--object-store-memory=80000000"),
            *(f"--temp-dir={self.folder}", "--disable-usage-stats"),
        ]
        self.run([*ray, *role], self.folder, self.folder / "start.log")

    def pids(self) -> list[int]:
        """Return the processes of this host."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def names(self) -> set[str]:
        """Return what this host's processes call themselves; Ray's begin with `ray::`."""
        found = set()
        for pid in self.pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.add(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode())
        return found

    def kill(self) -> None:
        """Lose this host: pull its cable, so that nobody hears a goodbye, and SIGKILL all of its processes."""
        self._cable("down")
        self.end()

    def end(self) -> None:
        """SIGKILL all of this host's processes, until none is left."""
        end = time.monotonic() + SECONDS
        while pids := self.pids():
            assert time.monotonic() < end, f"{pids} outlive SIGKILL"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _cable(self, state: str) -> None:
        subprocess.run(["ip", "-netns", self.name, "link", "set", "eth0", state], check=True)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Give two hosts on which Ray runs, the head on the first; both are gone when the block ends."""
    names = [f"pedigree-{os.getpid()}-{secrets.token_hex(2)}-{number}" for number in (1, 2)]
    addresses, token = ("10.0.0.1", "10.0.0.2"), secrets.token_hex(32)
    folders = [Path(tempfile.mkdtemp(prefix="host-")) for _ in names]
    hosts = [Host(*each, token) for each in zip(names, addresses, (addresses[0],) * 2, folders, strict=True)]
    try:
        _wire(hosts)
        for host in hosts:
            host.start()
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            with suppress(subprocess.CalledProcessError):  # it was not made
                host.end()
                subprocess.run(["ip", "netns", "del", host.name], check=True)
            shutil.rmtree(host.folder, ignore_errors=True)


def _wire(hosts: list[Host]) -> None:
    first, second = (host.name for host in hosts)
    commands = [["netns", "add", name] for name in (first, second)]
    cable = ["type", "veth", "peer", "name", "eth0"]
    commands += [["link", "add", "eth0", "netns", first, *cable, "netns", second]]
    for host in hosts:
        inside = ["-netns", host.name]
        commands += [[*inside, "address", "add", f"{host.address}/24", "dev", "eth0"]]
        commands += [[*inside, "link", "set", "lo", "up"]]
    for command in commands:
        subprocess.run(["ip", *command], check=True)
