"""Our code in Ray Train's controller, without torch, whose import would delay each training by seconds."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

from components.errors import PedigreeError, sentence

LEAVE_SECONDS = 30
"""Time in which workers leave their process group; Ray's default."""


class NoRetryOfMistakes(ray.train.UserCallback):
    """Ends the run at an error that a user has to correct, as Ray does not retry after a callback raises."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's error if it has a message for users."""
        for error in worker_exceptions.values():
            text = sentence_in(error)
            if text is not None:
                raise PedigreeError(text)


def sentence_in(error: BaseException | None) -> str | None:
    """Return the message for users of an error or of one of its causes, or None if there is none."""
    while error is not None:
        text = sentence(getattr(error, "cause", None) or error)
        if text is not None:
            return text
        error = error.__cause__
    return None


@dataclass
class MeetInAFile(BackendConfig):
    """Rendezvous of workers on one machine in a file, as torch's rendezvous server listens on every interface."""

    folder: Path
    backend: str
    """Backend of torch.distributed: "nccl" or "gloo"."""
    timeout_s: int = 1800
    """Time after which a worker stops waiting for the others; Ray's default."""

    @property
    def backend_cls(self) -> type["_Meeting"]:
        """Return the class that the controller calls when workers start and end."""
        return _Meeting

    @property
    def train_func_context(self) -> Any:
        """Return Ray's own context for a worker's training function, which sets its GPU."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager


class _Meeting(Backend):
    """As Ray's own, except for the rendezvous: a new file each time, also when dead workers are restarted."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        backend_config.folder.mkdir(parents=True, exist_ok=True)
        meeting = {
            "backend": backend_config.backend,
            "world_size": len(worker_group),
            "init_method": (backend_config.folder / uuid.uuid4().hex).as_uri(),
            "timeout_s": backend_config.timeout_s,
        }
        ray.get(_on_each(worker_group, _join, meeting))

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        world = len(worker_group)
        ray.wait(_on_each(worker_group, _leave, world), num_returns=world, timeout=LEAVE_SECONDS)


def _on_each(worker_group: Any, call: Any, *arguments: Any) -> list[Any]:
    return [worker_group.execute_single_async(rank, call, rank, *arguments) for rank in range(len(worker_group))]


def _join(rank: int, meeting: dict[str, Any]) -> None:
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    _set_torch_distributed_env_vars()
    _setup_torch_process_group(world_rank=rank, **meeting)


def _leave(rank: int, world: int) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=world > 1)
