"""The contract between the two packages: names, files and formats on disk.

A dataset is identified by its NAME. Its manifests are in `manifests/NAME/`, its large files in
`data/NAME/`, its logs in `logs/NAME/`. `training` imports only this package of the pipeline, so it
also exports the helpers that both share.
"""

from __future__ import annotations

from pipeline.atomic_io import (
    FileLock,
    atomic_file,
    is_locked,
    lock,
    remove_temp_files,
    write_atomic,
    write_json,
)
from pipeline.config_io import STRICT, parse_config, read_toml
from pipeline.contract.index import (
    LARGEST_SIDE,
    ShardEntry,
    ShardIndex,
    index_to_json,
    load_index,
    locate_index,
)
from pipeline.contract.paths import NAME, DatasetPaths, project_root, runs_dir
from pipeline.contract.rows import (
    Box,
    ManifestRow,
    OriginalRecord,
    image_key,
    now_utc,
    parse_boxes,
)
from pipeline.cores import cpu_count
from pipeline.credentials import (
    basic_authorization,
    fsspec_arguments,
    split_user,
)
from pipeline.errors import UserError, describe_os_error, is_disk_full
from pipeline.exit import CommandParser, exit_status
from pipeline.hub import HubRepo, check_hub, front_matter, hub_license, license_warnings, upload
from pipeline.jsonl import JsonlAppender, complete_lines, read_jsonl, read_rows
from pipeline.local_server import (
    BadRequest,
    accepted_hosts,
    create_local_app,
    listen,
    page_url,
    respond,
    serve_app,
)
from pipeline.markup import STILL_PAGE, code_span, disarm_markdown, escape_markdown
from pipeline.outside_text import printable, safe_text, without_passwords
from pipeline.reading import (
    finish_within,
    is_url,
    is_web_page,
    local_path,
    open_regular,
    read_bytes,
    report_waiting,
    short_reason,
    split_url,
)
from pipeline.suggestions import suggestion
from pipeline.units import count_of, format_bytes, format_duration, line_interval
from pipeline.versions import Migration, migrate

__all__ = [
    "LARGEST_SIDE",
    "NAME",
    "STILL_PAGE",
    "STRICT",
    "BadRequest",
    "Box",
    "CommandParser",
    "DatasetPaths",
    "FileLock",
    "HubRepo",
    "JsonlAppender",
    "ManifestRow",
    "Migration",
    "OriginalRecord",
    "ShardEntry",
    "ShardIndex",
    "UserError",
    "accepted_hosts",
    "atomic_file",
    "basic_authorization",
    "check_hub",
    "code_span",
    "complete_lines",
    "count_of",
    "cpu_count",
    "create_local_app",
    "describe_os_error",
    "disarm_markdown",
    "escape_markdown",
    "exit_status",
    "finish_within",
    "format_bytes",
    "format_duration",
    "front_matter",
    "fsspec_arguments",
    "hub_license",
    "image_key",
    "index_to_json",
    "is_disk_full",
    "is_locked",
    "is_url",
    "is_web_page",
    "license_warnings",
    "line_interval",
    "listen",
    "load_index",
    "local_path",
    "locate_index",
    "lock",
    "migrate",
    "now_utc",
    "open_regular",
    "page_url",
    "parse_boxes",
    "parse_config",
    "printable",
    "project_root",
    "read_bytes",
    "read_jsonl",
    "read_rows",
    "read_toml",
    "remove_temp_files",
    "report_waiting",
    "respond",
    "runs_dir",
    "safe_text",
    "serve_app",
    "short_reason",
    "split_url",
    "split_user",
    "suggestion",
    "upload",
    "without_passwords",
    "write_atomic",
    "write_json",
]  # fmt: skip
