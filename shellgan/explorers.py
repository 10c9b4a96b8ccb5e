"""The explorer page of a generator, served from a thread."""

from __future__ import annotations

import threading

import uvicorn

from pipeline.contract import accepted_hosts, listen, page_url
from training.explorer.server import create_app
from training.pretrained.inference import TrainedGenerator

HOST = "127.0.0.1"
_NOTEBOOK_HOSTS = ["*.googleusercontent.com", "*.colab.dev"]
"""Names under which Colab forwards requests to this machine."""


class Explorer:
    """The explorer page at `url`, which listens on `port` of this machine until `close`; a context
    manager. `Model.explore` returns it."""

    def __init__(self, trained: TrainedGenerator, port: int, title: str, in_frame: bool) -> None:
        hosts = [*accepted_hosts(HOST), *(_NOTEBOOK_HOSTS if in_frame else ())]
        app = create_app(trained, None, hosts, title, in_frame)
        listener = listen(HOST, port, 0)  # last, so that an error leaves no open port
        self.url, self.port = page_url(HOST, listener), listener.getsockname()[1]
        config = uvicorn.Config(
            app, log_level="error", access_log=False, timeout_graceful_shutdown=1, lifespan="off"
        )
        self._server, self._listener = uvicorn.Server(config), listener
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="explorer", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving; the port is free afterwards."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Explorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
