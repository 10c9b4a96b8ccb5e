"""Scalars for TensorBoard, written synchronously: TensorBoard's own writer uses a thread, which
prints a traceback if the disk is full and reports it only at the next scalar."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """Open a new event file in `folder`; TensorBoard ignores those of other files from `purge` on.

    Raises (each method): OSError.
    """

    def __init__(self, folder: Path, purge: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
        name = f"events.out.tfevents.{stamp}.{time.monotonic_ns()}"
        self._records = RecordWriter((folder / name).open("wb", buffering=0))
        try:
            self._write(Event(file_version="brain.Event:2"))
            session = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge, session_log=session))
        except OSError:
            self.close()
            raise

    def add(self, scalars: dict[str, float], step: int) -> None:
        """Record the scalars of a step."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
