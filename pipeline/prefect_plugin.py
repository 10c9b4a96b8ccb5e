"""Makes `prefect deployment run scrape-shells` work like `scrape-shells/scrape-shells`.

Prefect's client splits a deployment's name at "/" before it asks the server, so a short name always
fails. This start-up hook (entry point group `prefect.plugins`, enabled by `[plugins]` in
prefect.toml) completes the short names of this project's flows in the command line. The hook was
not designed for that, so it changes only `prefect deployment run NAME`, and the full name always
works. It also disables the client's telemetry, for which prefect.toml has no setting.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from prefect.plugins import HookContext, SetupResult, register_hook

from pipeline.names import flow_names


def complete_deployment_name(argv: Sequence[str], names: Collection[str]) -> list[str]:
    """Return `argv` with the first short name after `prefect deployment run` completed to
    NAME/NAME."""
    command = list(argv)
    if len(command) < 4 or command[1:3] != ["deployment", "run"]:
        return command
    for position, word in enumerate(command[3:], start=3):
        if word in names and command[position - 1] not in _OPTIONS_WITH_VALUE:
            command[position] = f"{word}/{word}"
            break
    return command


_OPTIONS_WITH_VALUE = {
    "--id", "-p", "--param", "--params", "--job-variable", "-jv", "--start-in", "--start-at",
    "--tag", "--watch-interval", "--watch-timeout", "--flow-run-name",
}  # fmt: skip


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult:  # noqa: ARG001
    """Disable telemetry; if this process is the `prefect` command, complete the name."""
    if Path(sys.argv[0]).stem == "prefect" or Path(sys.argv[0]).parent.name == "prefect":
        sys.argv[:] = complete_deployment_name(sys.argv, flow_names())
    return SetupResult(env={"DO_NOT_TRACK": "1"})
