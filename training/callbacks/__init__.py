"""What the training loop does besides its steps, one callback per file."""

from training.callbacks.advice import AdviceCallback
from training.callbacks.alarms import AlarmsCallback
from training.callbacks.base import Action, Cadence, Callback, Diverged, EndReason
from training.callbacks.checkpoints import CheckpointsCallback
from training.callbacks.console import ConsoleCallback
from training.callbacks.evaluation import EvaluationCallback
from training.callbacks.history import HistoryCallback
from training.callbacks.limits import LimitsCallback
from training.callbacks.report import ReportCallback
from training.callbacks.rollback import DIVERGENCE_HINT, RollbackCallback
from training.callbacks.samples import SamplesCallback
from training.callbacks.stop_rules import StopRulesCallback
from training.callbacks.threads import ThreadsCallback
from training.callbacks.tracking import TrackingCallback
from training.callbacks.writer import BackgroundWriter

__all__ = [
    "DIVERGENCE_HINT", "Action", "AdviceCallback", "AlarmsCallback", "BackgroundWriter", "Cadence",
    "Callback", "CheckpointsCallback", "ConsoleCallback", "Diverged", "EndReason",
    "EvaluationCallback", "HistoryCallback", "LimitsCallback", "ReportCallback",
    "RollbackCallback", "SamplesCallback", "StopRulesCallback", "ThreadsCallback",
    "TrackingCallback",
]  # fmt: skip
