"""Programs in several processes of torch.distributed, which are forks of one with torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.helpers.processes import PROJECT


def free_ports(count: int) -> list[str]:
    """Ports that nothing uses."""
    with ExitStack() as stack:
        places = [stack.enter_context(socket.socket()) for _ in range(count)]
        for place in places:
            place.bind(("127.0.0.1", 0))
        return [str(place.getsockname()[1]) for place in places]


def run_ranks(
    work: Callable[..., None], world: int, folder: Path, *words: str, status: int = 0
) -> list[str]:
    """Call `work(*words)` in `folder` in each of `world` processes, which end with `status`; what
    each printed.

    A fork server imports the trainer once, so a process starts without the seconds that takes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "training.session"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(PROJECT)  # for the fork server's own imports
    port, outputs, processes = free_ports(1)[0], [], []
    for rank in range(world):
        env = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        outputs.append(folder / f"rank-{rank}-of-{world}.log")
        process = context.Process(target=_be_rank, args=(work, env, outputs[-1], words))
        process.start()
        processes.append(process)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    for process in processes:
        process.join()
    texts = [path.read_text() for path in outputs]
    assert [process.exitcode for process in processes] == [status] * world, "\n".join(texts)
    return texts


def _be_rank(
    work: Callable[..., None], env: dict[str, str], output: Path, words: tuple[str, ...]
) -> None:
    import torch

    os.environ.update(env)
    os.chdir(output.parent)
    torch.set_num_threads(1)
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        work(*words)
