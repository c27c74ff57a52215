"""`python -m tests.accounts.stranger PID`: what another account can do to a running command, as JSON.

It looks for ports, sockets and arguments as root, then becomes another account (setuid(2)) and tries them. It
imports everything first, because that account may not be able to read this Python.
"""

import json
import os
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

NOBODY = 65534
SHARED = ("/tmp", "/var/tmp", "/dev/shm")
SECRET = ("TOKEN", "PASSWORD", "SECRET", "AUTH_STRING", "API_KEY")
"""What the names of environment variables with secrets contain."""
CALLS = (
    "CoreWorkerService/PushTask",
    "CoreWorkerService/KillActor",
    "NodeManagerService/GetNodeStats",
    "NodeManagerService/RequestWorkerLease",
    "NodeManagerService/ShutdownRaylet",
    "ObjectManagerService/Push",
    "NodeInfoGcsService/GetAllNodeInfo",
    "InternalKVGcsService/InternalKVGet",
    "ActorInfoGcsService/GetAllActorInfo",
    "syncer.RaySyncer/StartSync",
)
"""Of Ray's services, each of which one of its programs or a worker offers."""
PROGRAMS = {
    "prefect_server": "prefect",
    "mlflow_app": "mlflow",
    "prefect.engine": "driver",
    "main() run digits": "driver",
}
"""Names of processes by a part of their command lines; a training's driver is its flow's process."""
UNKNOWN = "12"
"""What a port answers to calls of another program's service (grpc.io/docs/guides/status-codes)."""


def processes(pid: int) -> dict[str, psutil.Process]:
    """Return a process and its descendants by a name and their PIDs."""
    top = psutil.Process(pid)
    found = {}
    for each in [top, *top.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            program = " ".join(each.cmdline())
            name = next((name for part, name in PROGRAMS.items() if part in program), each.name())
            found[f"{name} {each.pid}"] = each
    return found


def ports(family: dict[str, psutil.Process]) -> list[tuple[str, int]]:
    """Return the ports at which they listen, with the names of their processes."""
    found = []
    for name, each in family.items():
        with suppress(psutil.Error):
            found += [(name, c.laddr.port) for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return found


def sockets(family: dict[str, psutil.Process]) -> list[str]:
    """Return the names of the Unix sockets at which they listen, or which they have connected."""
    found = set()
    for each in family.values():
        with suppress(psutil.Error):
            found |= {c.laddr for c in each.net_connections("unix") if c.laddr}
    return sorted(found)


def secrets_in_arguments(family: dict[str, psutil.Process]) -> list[str]:
    """Return the names of variables of their environment whose values are in an argument of one of them."""
    values, words = {}, []
    for each in family.values():
        with suppress(psutil.Error):
            words += each.cmdline()
            values |= {name: value for name, value in each.environ().items() if any(s in name for s in SECRET)}
    return sorted(name for name, value in values.items() if len(value) > 8 and any(value in w for w in words))


def answers(port: int, key: Path | None = None, token: str = "") -> list[str]:
    """Return what a port answers to Ray's calls and to a browser's requests, if it answers at all."""
    tls = ssl.create_default_context(cafile=str(key)) if key else None
    if tls:
        tls.load_cert_chain(str(key))
    scheme = "https" if key else "http"
    headers = {"content-type": "application/grpc", "te": "trailers", "authorization": f"Bearer {token}"}
    found = set()
    for call in CALLS[: -1 if key else None]:  # the last one ends Ray
        # Each has a connection of its own, as a refused one may close it.
        with httpx.Client(http1=False, http2=True, timeout=2, trust_env=False, verify=tls or True) as client:
            url = f"{scheme}://127.0.0.1:{port}/ray.rpc.{call}"
            try:
                with client.stream("POST", url, headers=headers, content=bytes(5)) as answer:
                    found.add(answer.headers.get("grpc-status", "done"))
            except httpx.TimeoutException:
                break
            except httpx.HTTPError:
                continue
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=2, trust_env=False) as client:
        for method, path in (("GET", "/"), ("GET", "/api/admin/settings"), ("POST", "/api/flow_runs/filter")):
            with suppress(httpx.HTTPError):
                found.add(f"{method} {path} {client.request(method, path).status_code}")
    return sorted(found - {UNKNOWN})


def connected(names: list[str]) -> list[str]:
    """Return the Unix sockets that let this account connect, or be renamed by it."""
    found = []
    for name in names:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(f"\0{name[1:]}" if name.startswith("@") else name)
            found.append(name)
        with suppress(OSError):
            Path(name).rename(f"{name}-replaced")
            found.append(f"{name} renamed")
    return found


def can_read(file: str) -> bool:
    """Return whether this account can read a file."""
    with suppress(OSError):
        return bool(Path(file).read_bytes())
    return False


def writable(*folders: str) -> Iterator[str]:
    """Yield what this account can write to, or where it can replace what is in a folder."""
    for above in folders:
        for folder, _, names in os.walk(above):
            sticky = Path(folder).stat().st_mode & stat.S_ISVTX
            if os.access(folder, os.W_OK) and not sticky:
                yield folder
            paths = [Path(folder, name) for name in names]
            yield from (str(path) for path in paths if not path.is_symlink() and os.access(path, os.W_OK))


def main(pid: int) -> None:
    """Print what was found."""
    family = processes(pid)
    found = {"ports": ports(family), "sockets": sockets(family), "arguments": secrets_in_arguments(family)}
    ray = next(each for name, each in family.items() if name.startswith("raylet ")).environ()
    key, token = Path(ray["RAY_TLS_SERVER_KEY"]), ray["RAY_AUTH_TOKEN"]
    (port,) = [port for name, port in found["ports"] if name.startswith("gcs_server ")]
    found["with the key"], found["with key and token"] = answers(port, key), answers(port, key, token)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    found["answers"] = {f"{name} :{port}": answers(port) for name, port in found["ports"]}
    found["environments"] = [name for name, each in family.items() if can_read(f"/proc/{each.pid}/environ")]
    found["connected"] = connected(found["sockets"])
    found["writable"] = sorted(writable(*SHARED))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
