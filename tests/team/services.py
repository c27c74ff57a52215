"""What a team runs beside the code: PostgreSQL, an S3 server, MLflow's server and Prefect's, all on 127.0.0.1."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg2
from moto.server import ThreadedMotoServer

from components.runtime.processes import environment
from pipelines.children import Children

DATA, ARTIFACTS = "data", "artifacts"
"""Buckets."""
KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key-of-the-tests",
    "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""moto's server is content with any."""
PASSWORD = f"team:{secrets.token_hex(16)}"
"""Without which Prefect's server answers nobody."""


@dataclass(frozen=True)
class Team:
    """Where everything is."""

    database: str
    """postgresql://user:password@host:port, without the database's name."""
    s3: str
    mlflow: str
    prefect: str

    @property
    def env(self) -> dict[str, str]:
        """What each person's and each worker's environment says; no key of S3, nor the database's password."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow,
            "PREFECT_API_URL": self.prefect,
            "PREFECT_API_AUTH_STRING": PASSWORD,
        }


def initdb() -> Path | None:
    """Return PostgreSQL's program that makes databases, which Debian keeps off the PATH."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    found = shutil.which("initdb") or (debian or [None])[-1]
    return Path(found).resolve() if found else None


def free_port() -> int:
    """Return a port on 127.0.0.1 that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """Run a PostgreSQL with these empty databases, and give its address."""
    programs = initdb()
    assert programs is not None
    # PostgreSQL refuses to run as root, and whoever runs it cannot enter pytest's folders.
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password, port = secrets.token_hex(16), free_port()
    (folder / "password").write_text(password)
    for path in (folder, folder / "password"):
        shutil.chown(path, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs.with_name(program)), f"--pgdata={folder / 'data'}", *arguments]
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    try:
        flags = ("--encoding=UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256")
        run("initdb", "--username=team", f"--pwfile={folder / 'password'}", *flags)
        run("pg_ctl", "start", "--wait", f"--log={folder / 'log'}", f"--options={options}")
        try:
            address = f"postgresql://team:{password}@127.0.0.1:{port}"
            with closing(psycopg2.connect(f"{address}/postgres")) as connection:
                connection.autocommit = True
                for database in databases:
                    connection.cursor().execute(f"CREATE DATABASE {database}")
            yield address
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """Run an S3 server with these empty buckets in a thread, and give its address."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        address = "http://{}:{}".format(*moto.get_host_and_port())
        for bucket in buckets:
            s3_client(address).create_bucket(Bucket=bucket)
        yield address
    finally:
        moto.stop()


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """Run all four; the two servers write their own files below `folder`."""
    with postgres("mlflow", "prefect") as database, s3_server(DATA, ARTIFACTS) as s3:
        mlflow, prefect = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        env = environment(
            MLFLOW_BACKEND_STORE_URI=f"{database.replace('://', '+psycopg2://')}/mlflow",
            MLFLOW_ARTIFACTS_DESTINATION=f"s3://{ARTIFACTS}",
            MLFLOW_S3_ENDPOINT_URL=s3,
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            PREFECT_API_DATABASE_CONNECTION_URL=f"{database.replace('://', '+asyncpg://')}/prefect",
            PREFECT_SERVER_API_AUTH_STRING=PASSWORD,
            PREFECT_HOME=str(folder / "prefect"),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
            **KEYS,
        )
        with Children(env) as children:
            serve = ["-m", "prefect", "server", "start", *_at(prefect)]
            children.start("Prefect", serve, f"{prefect}/api/health", folder)
            serve = ["-m", "mlflow", "server", "--workers", "1", *_at(mlflow)]
            children.start("MLflow", serve, f"{mlflow}/health", folder)
            children.wait()
            yield Team(database, s3, mlflow, f"{prefect}/api")


def _at(address: str) -> list[str]:
    host, port = address.removeprefix("http://").split(":")
    return ["--host", host, "--port", port]


def s3_client(address: str) -> object:
    """Return boto3's client of an S3 server."""
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_DEFAULT_REGION"],
    )
