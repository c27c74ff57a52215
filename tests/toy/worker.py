"""python -m tests.toy.worker RANK WORLD FOLDER: one of several workers that train `tones` together, without Ray."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.toy.test_gradients import train


def main(rank: int, world: int, folder: Path) -> None:
    """Train by the side of the others, which meet in a file of the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    train(folder, rank, world)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
