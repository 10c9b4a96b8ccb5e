"""Retries: whether a failed request is tried again, and after how long."""

from __future__ import annotations

import tenacity

from pipeline.web.politeness import Politeness
from pipeline.web.responses import RequestFailure

FILE_ATTEMPTS = 2
"""Maximum number of attempts for a policy file other than robots.txt."""

_RETRY_NEXT_RUN = frozenset(("host_cooldown", "quota_page"))
"""Failures that are worth retrying, but not within minutes."""


class _RetryAfterOrJitter(tenacity.wait.wait_base):
    """Exponential backoff with full jitter, at least as long as the server's Retry-After."""

    def __init__(self, politeness: Politeness) -> None:
        self._jitter = tenacity.wait_random_exponential(
            multiplier=politeness.backoff, max=politeness.max_backoff
        )

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        failure = retry_state.outcome.result() if retry_state.outcome else None
        delay = failure.retry_after if isinstance(failure, RequestFailure) else None
        return max(self._jitter(retry_state), delay or 0.0)


def retry_policy(politeness: Politeness, attempts: int | None = None) -> tenacity.Retrying:
    """Return the retry policy of `politeness`, for at most `attempts` attempts if given."""

    def is_worth_retrying(result: object) -> bool:
        return (
            isinstance(result, RequestFailure)
            and result.retryable
            and not result.retries_exhausted
            and result.kind not in _RETRY_NEXT_RUN
            and (result.retry_after or 0.0) <= politeness.max_wait
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(is_worth_retrying),
        stop=tenacity.stop_after_attempt(min(attempts or politeness.attempts, politeness.attempts)),
        wait=_RetryAfterOrJitter(politeness),
    )


def delay_before_retry(
    policy: tenacity.Retrying, attempts: int, failure: RequestFailure
) -> float | None:
    """Return the seconds to wait after `attempts` attempts, or None not to retry."""
    state = tenacity.RetryCallState(policy, None, (), {})
    state.attempt_number = attempts
    state.set_result(failure)
    if not policy.retry(state) or policy.stop(state):
        return None
    return float(policy.wait(state))
