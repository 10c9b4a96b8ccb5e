"""From a gallery to an image generator, in Python; docs/api.md has examples.

Nothing here prints or ends the process. A wrong argument raises `UserError`, whose text is one line
for people. Names are imported when they are first used, so `import shellgan` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.crawl.results import CrawlResult as CrawlResult
    from pipeline.errors import UserError as UserError
    from pipeline.events import Event as Event
    from pipeline.events import Progress as Progress
    from pipeline.importers.stage import ImportResult as ImportResult
    from pipeline.originals.download import DownloadResult as DownloadResult
    from pipeline.select.stage import SelectResult as SelectResult
    from pipeline.shards.stage import ShardResult as ShardResult
    from shellgan.datasets import Dataset as Dataset
    from shellgan.datasets import Statistics as Statistics
    from shellgan.datasets import open_dataset as open_dataset
    from shellgan.explorers import Explorer as Explorer
    from shellgan.images import ProjectedImage as ProjectedImage
    from shellgan.images import to_grid as to_grid
    from shellgan.images import to_pil as to_pil
    from shellgan.models import Model as Model
    from shellgan.models import load as load
    from shellgan.runs import Run as Run
    from shellgan.runs import train as train
    from shellgan.stages import Recipe as Recipe
    from shellgan.stages import crawl as crawl
    from shellgan.stages import download as download
    from shellgan.stages import import_images as import_images
    from shellgan.stages import select as select
    from shellgan.stages import shard as shard
    from training.callbacks import Action as Action
    from training.callbacks import Callback as Callback
    from training.callbacks import EndReason as EndReason
    from training.evaluation.comparison import EvaluationResult as EvaluationResult
    from training.monitoring.console import TrainingProgress as TrainingProgress

__version__ = "0.2.0"

_MODULES = {
    "shellgan.stages": (
        "Recipe", "crawl", "download", "import_images", "select", "shard",
    ),
    "shellgan.datasets": ("Dataset", "Statistics", "open_dataset"),
    "shellgan.runs": ("Run", "train"),
    "shellgan.explorers": ("Explorer",),
    "shellgan.models": ("Model", "load"),
    "shellgan.images": ("ProjectedImage", "to_grid", "to_pil"),
    "pipeline.crawl.results": ("CrawlResult",),
    "pipeline.errors": ("UserError",),
    "pipeline.events": ("Event", "Progress"),
    "pipeline.importers.stage": ("ImportResult",),
    "pipeline.originals.download": ("DownloadResult",),
    "pipeline.select.stage": ("SelectResult",),
    "pipeline.shards.stage": ("ShardResult",),
    "training.callbacks": ("Action", "Callback", "EndReason"),
    "training.evaluation.comparison": ("EvaluationResult",),
    "training.monitoring.console": ("TrainingProgress",),
}  # fmt: skip
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shellgan' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__
