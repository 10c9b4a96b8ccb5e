"""Uploads to the Hugging Face Hub (extra `hf`), and the metadata of cards there.

The token comes from the environment (HF_TOKEN) or from `hf auth login`; it is never printed. The
server is that of HF_ENDPOINT, by default https://huggingface.co.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import UserError
from pipeline.outside_text import printable, safe_text
from pipeline.reading import short_reason
from pipeline.units import count_of, format_bytes

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?")
_LICENSES = {
    "cc0": "cc0-1.0", "publicdomain": "cc0-1.0", "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc-by-4.0": "cc-by-4.0", "cc-by-nc-4.0": "cc-by-nc-4.0", "cc-by-sa-3.0": "cc-by-sa-3.0",
    "cc-by-3.0": "cc-by-3.0", "cc-by-2.0": "cc-by-2.0", "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
}  # fmt: skip
_MAX_LICENSES = 20
_MAX_SHOWN = 20
_AGAIN = "run the same command again to continue"


@dataclass(frozen=True)
class HubRepo:
    """A repository on the Hub: `name` is USER/NAME. A new one is private unless `public`; an
    existing one keeps its visibility."""

    name: str
    kind: Literal["model", "dataset", "space"]
    public: bool = False

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
            raise UserError(f"--hub {self.name}: expected USER/NAME")


def hub_license(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the metadata for a number of images by licence ("" if none is stated): the Hub's
    identifier if all have the same known one, otherwise `other` with the list."""
    known = {_identifier(name) for name in counts}
    if len(known) == 1 and (one := known.pop()):
        return {"license": one}
    if not any(counts):
        return {"license": "unknown"}
    listed = sorted(counts.items(), key=lambda item: -item[1])
    told = [
        f"{name or 'not stated'} ({count_of(n, 'image')})" for name, n in listed[:_MAX_LICENSES]
    ]
    if len(listed) > _MAX_LICENSES:
        told.append(f"and {len(listed) - _MAX_LICENSES} more")
    name = "mixed" if len(counts) > 1 else "custom"
    return {"license": "other", "license_name": name, "license_details": "; ".join(told)}


def _identifier(name: str) -> str:
    word = name.casefold().replace(" ", "-").replace("_", "-").strip("-")
    return next((known for start, known in _LICENSES.items() if word in (start, known)), "")


def license_warnings(what: str, licenses: Mapping[str, int], overridden: int) -> list[str]:
    """Return what to check before images, or what was trained on them, are published."""
    total, found = sum(licenses.values()), []
    if unknown := licenses.get("", 0) if total else 0:
        found.append(
            f"{what}: {unknown:,} of {total:,} images state no licence; check that you may "
            "publish them"
        )
    if overridden:
        found.append(
            f"{what}: {count_of(overridden, 'image')} kept despite an opt-out signal; check that "
            "you may publish them"
        )
    return found


def front_matter(values: Mapping[str, Any]) -> str:
    """Return the YAML block that begins a README.md on the Hub."""
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return safe_text("\n".join(("---", *lines, "---", "")))


def check_hub(repo: HubRepo) -> str:
    """Return the token for the Hub.

    Raises:
        UserError: the package or the token is missing.
    """
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise UserError("--hub: needs pip install 'shellgan[hf]'") from None
    if not (token := get_token()):
        raise UserError(f"--hub {repo.name}: no token; set HF_TOKEN or run `hf auth login`")
    return token


def upload(
    folder: Path,
    names: Sequence[str],
    repo: HubRepo,
    say: Callable[[str], None],
    replaced: Sequence[str] = (),
) -> str:
    """Upload these files of a folder, after printing them; return the URL of the repository.

    Files that the Hub already has are not sent again, so the same command continues after an
    interruption. Files on the Hub that match a pattern in `replaced` and are not in `names` are
    deleted.

    Raises:
        UserError: the package or the token is missing, the account may not write there, or the Hub
            is not reachable.
    """
    token = check_hub(repo)
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    url = f"{api.endpoint}/{prefix}{repo.name}"
    try:
        _announce(api, folder, names, repo, url, say)
        _send(api, folder, names, repo, replaced)
    except Exception as error:  # noqa: BLE001 (the package raises those of its HTTP library too)
        reason = _describe(error).replace(token, "…")
        raise UserError(f"{url}: {reason}") from None
    say(f"uploaded to {url}")
    return url


def _announce(
    api: HfApi, folder: Path, names: Sequence[str], repo: HubRepo, url: str,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = api.repo_info(repo.name, repo_type=repo.kind).private
        state = f"exists, {'private' if private else 'public'}"
    except RepositoryNotFoundError:
        state = "new, public" if repo.public else "new, private; --public makes it public"
    sizes = {name: (folder / name).stat().st_size for name in names}
    what = f"{count_of(len(sizes), 'file')}, {format_bytes(sum(sizes.values()))}"
    say(f"uploading {what}, to {url} ({state})")
    for name, size in list(sizes.items())[:_MAX_SHOWN]:
        say(f"  {name}  {format_bytes(size)}")
    if len(sizes) > _MAX_SHOWN:
        say(f"  and {len(sizes) - _MAX_SHOWN:,} more")


def _send(
    api: HfApi, folder: Path, names: Sequence[str], repo: HubRepo, replaced: Sequence[str]
) -> None:
    api.create_repo(
        repo.name, repo_type=repo.kind, private=not repo.public, exist_ok=True,
        space_sdk="static" if repo.kind == "space" else None,
    )  # fmt: skip
    api.upload_folder(
        repo_id=repo.name, repo_type=repo.kind, folder_path=folder,
        allow_patterns=list(names), delete_patterns=list(replaced) or None,
        commit_message="Upload with ShellGAN",
    )  # fmt: skip


def _describe(error: BaseException) -> str:
    """Return what is wrong and what to do, in one line."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    for one in causes:
        status = getattr(getattr(one, "response", None), "status_code", None)
        said = printable(str(getattr(one, "server_message", "") or ""), 200)
        if status == 401:
            return "the Hub does not accept the token; run `hf auth login` with a new one"
        if status in (403, 404):
            hint = "check the name, and that the token has write permission"
            return f"the account of the token may not write there; {hint}" + (
                f" (the Hub: {said})" if said else ""
            )
        if status is not None:
            return f"the Hub answered {status}{f' ({said})' if said else ''}; {_AGAIN}"
    return f"the upload failed ({printable(short_reason(causes[-1]), 200)}); {_AGAIN}"
