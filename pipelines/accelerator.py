"""Prefect's limit on trainings: holds a slot, says who holds the others, and frees those of dead processes."""

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.runtime import files, presence
from components.runtime.background import in_thread
from components.runtime.processes import Process
from pipelines import server

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("pedigree.accelerator")

LIMIT = "accelerator"
"""Prefect's global concurrency limit on trainings: the number of GPUs, or 1, until a user changes it."""
LEASE_SECONDS = 60
"""The server frees a slot that was not renewed for this time, its minimum."""
POLL_SECONDS = 1.0
SLOTS = Path("build", ".slots")
"""Below the project's folder: a file per slot. Prefect's API does not tell who holds a limit's leases."""
LOCKED = 423
"""Status of the server's answer while no slot is free."""


class Slot(BaseModel):
    """A slot that a process of this checkout holds."""

    model_config = ConfigDict(frozen=True)

    lease: UUID
    doing: str = Field(description="What holds it, such as: the training of digits in the flow run quick-otter")
    host: str
    process: Process

    def __str__(self) -> str:
        return f"{self.doing} (pid {self.process.pid} on {self.host})"


def set_up() -> None:
    """Create the limit on a permanent server; keep an existing one, which a user may have changed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            from components.training import device  # importing torch takes seconds, and is needed here only once

            limit = GlobalConcurrencyLimitCreate(name=LIMIT, limit=max(1, len(device.gpus())))
            with suppress(ObjectAlreadyExists):  # created meanwhile by another process
                client.create_global_concurrency_limit(limit)


@contextmanager
def slot(root: Path, doing: str) -> Iterator[None]:
    """Hold a slot of the server's limit while the block runs; wait for it, and log for whom.

    A temporary server needs no limit: it serves only this process. Prefect's own `concurrency` waits in another
    thread, for up to half a minute after it is cancelled, and does not tell its lease.

    Args:
        root: The project's folder.
        doing: What the block does, for those who wait.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if server.is_temporary() or not PREFECT_API_URL.value():
        yield
        return
    set_up()
    with get_client(sync_client=True) as client:
        lease = _acquire(client, root)
        held = Slot(lease=lease, doing=doing, host=platform.node(), process=presence.announce(root))
        try:
            files.write_text(_note(root, lease), held.model_dump_json(indent=2) + "\n")
            with _renewed(lease):
                yield
        finally:
            _release(client, root, lease)


def _acquire(client: "SyncPrefectClient", root: Path) -> UUID:
    """Wait until the server grants a slot; return its lease."""
    from httpx import HTTPStatusError

    said = ""
    while True:
        try:
            answer = client.increment_concurrency_slots_with_lease([LIMIT], 1, "concurrency", LEASE_SECONDS)
            return UUID(answer.json()["lease_id"])
        except HTTPStatusError as error:
            if error.response.status_code != LOCKED:
                raise
        if free_dead(root):
            continue
        holders = " or ".join(str(each) for each in _slots(root))
        text = f"{holders} to end" if holders else f"another training, for {LEASE_SECONDS} s if it was killed"
        if text != said:
            log.info("waiting for %s", text)
            said = text
        time.sleep(POLL_SECONDS)


@contextmanager
def _renewed(lease: UUID) -> Iterator[None]:
    """Renew a lease while the block runs. A server that is away for a while must not end a training."""
    from prefect.client.orchestration import get_client

    ended = Event()

    def renew() -> None:
        with get_client(sync_client=True) as client:
            while not ended.wait(LEASE_SECONDS / 3):
                try:
                    client.renew_concurrency_lease(lease, LEASE_SECONDS)
                except Exception as error:
                    log.debug("could not renew the slot of the accelerator (%s)", error)

    in_thread(renew, "accelerator")
    try:
        yield
    finally:
        ended.set()


def free_dead(root: Path) -> bool:
    """Free the slots of processes that were killed, and end what they left; return whether there was one."""
    from prefect.client.orchestration import get_client

    if server.is_temporary():  # the slots are another server's
        return False
    dead = [each for each in _slots(root) if not presence.lives(root, each.process)]
    if dead:
        presence.end_orphans(root)  # before another training takes what they use
        with get_client(sync_client=True) as client:
            for each in dead:
                log.info("%s was interrupted: its slot is free", each.doing)
                _release(client, root, each.lease)
    return bool(dead)


def _release(client: "SyncPrefectClient", root: Path, lease: UUID) -> None:
    try:
        client.release_concurrency_slots_with_lease(lease)
    except Exception as error:  # the training is done; the server frees the slot itself
        log.warning(
            "the accelerator is free in %d s, as Prefect's server did not answer (%s)", LEASE_SECONDS, error
        )
    _note(root, lease).unlink(missing_ok=True)


def _note(root: Path, lease: UUID) -> Path:
    return root / SLOTS / f"{lease}.json"


def _slots(root: Path) -> list[Slot]:
    found: list[Slot] = []
    for file in sorted((root / SLOTS).glob("*.json")):
        with suppress(OSError, ValidationError):  # released meanwhile
            found.append(Slot.model_validate_json(file.read_bytes()))
    return found
