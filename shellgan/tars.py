"""A webdataset pipeline over tars at any path or URL."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import webdataset
from webdataset.compat import FluidInterface
from webdataset.tariterators import group_by_keys, tar_file_expander

from training.streaming.ranges import RangeReader, open_ranges

_BUFFER, _TIMEOUT = 1 << 20, 60.0


class TarPipeline(webdataset.DataPipeline, FluidInterface):  # type: ignore[misc]
    """The samples of tars, in order. A worker of a `DataLoader` reads its share of the tars."""

    def __init__(self, locations: Sequence[str]) -> None:
        super().__init__(
            webdataset.SimpleShardList(list(locations)), webdataset.split_by_worker, _open_tars,
            tar_file_expander, group_by_keys,
        )  # fmt: skip


class _Stream(io.RawIOBase):
    """A tar that is read from the beginning to the end."""

    def __init__(self, reader: RangeReader) -> None:
        self._reader, self._offset = reader, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._reader.pread(min(len(buffer), self._reader.size - self._offset), self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def close(self) -> None:
        self._reader.close()
        super().close()


def _open_tars(shards: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Open tars as this project does: webdataset would run a program for URLs."""
    for shard in shards:
        with io.BufferedReader(_Stream(open_ranges(shard["url"], _TIMEOUT)), _BUFFER) as stream:
            yield {**shard, "stream": stream}
