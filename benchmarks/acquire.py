"""Throughput from URLs to WebDataset, in images per second: this project and img2dataset, in the
same run.

Both fetch the same photographs from the same nginx on loopback and store the central square as a
JPEG of quality 95; start-up is included. Only politeness is switched off; everything else (failure
rules, journal, hashes, image properties) is the normal code. The settings alternate, `--rounds`
times; the ratio is that of the medians. On a busy machine the ratio of CPU times is more reliable
than that of speeds. The pixels are compared with a full decode and Lanczos by Pillow.

Needs nginx, openssl, and img2dataset 1.47 in a separate Python (`--peer-python`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certifi
import numpy as np
from photographs import write_photographs
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, image_key
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.imaging.center_crop import center_square
from pipeline.options import OriginalsOptions
from pipeline.originals.download import decoding_threads, download
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource

CASES = (("http", 256), ("http", 64), ("https", 256))
CONCURRENCY = 16
PEER = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], image_size=int(sys.argv[3]),
             processes_count=int(sys.argv[4]), thread_count=int(sys.argv[5]),
             resize_mode="center_crop", encode_quality=95, encode_format="jpg",
             output_format="webdataset", input_format="txt", number_sample_per_shard=1000,
             enable_wandb=False, disallowed_header_directives=[])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, help="a Python that has img2dataset")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-threads", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the photographs are kept between runs")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        run_ours(Path(args.ours[0]), Path(args.ours[1]), int(args.ours[2]))
        return
    with tempfile.TemporaryDirectory(prefix="acquire-") as name:
        work = Path(name)
        work.chmod(0o755)  # nginx drops its privileges to a separate user
        compare(args, work)


def run_ours(urls: Path, root: Path, side: int) -> None:
    """The download stage itself, with politeness switched off."""
    dataset = DatasetPaths("speed", root)
    rows = [{"key": image_key(url), "url": url} for url in urls.read_text().split()]
    with JsonlAppender(dataset.url_manifest) as manifest:
        manifest.append(*rows)
    politeness = Politeness(
        rate=1e6, concurrency=CONCURRENCY, obey_robots=False, allow_private=True
    )
    source = HtmlSource(start=("http://127.0.0.1/",))  # the manifest already exists
    recipe = Recipe(source=source, politeness=politeness, originals=OriginalsOptions(side=side))
    with EventLog(dataset, "speed") as log:
        result = download(recipe, dataset, log)
    if result.failed:
        sys.exit(f"{result.failed} images failed; see {dataset.failure_log}")


def compare(args: argparse.Namespace, work: Path) -> None:
    photos = args.folder or work / "photographs"
    paths = write_photographs(photos, args.images)
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    print(f"{len(paths)} photographs, {1e3 * megabytes / len(paths):.0f} kB on average", flush=True)
    results: dict[str, Any] = {}
    peaks: dict[str, list[float]] = {"ours": [], "peer": []}
    with nginx(photos, work) as (http, https, trusted):
        environment = {**os.environ, "SSL_CERT_FILE": str(trusted)}
        for scheme, side in CASES:
            base = http if scheme == "http" else https
            urls = work / f"{scheme}.txt"
            urls.write_text("".join(f"{base}/{path.name}\n" for path in paths))
            rates: dict[str, list[float]] = {"ours": [], "peer": []}
            costs: dict[str, list[float]] = {"ours": [], "peer": []}
            for _ in range(args.rounds):
                for who in ("peer", "ours"):
                    seconds, cpu, peak = one_run(who, args, urls, work / "out", side, environment)
                    costs[who].append(1000 * cpu / len(paths))
                    rates[who].append(len(paths) / seconds)
                    peaks[who].append(peak)
                    print(f"{scheme:5} {side:3} px  {who}: {rates[who][-1]:6.1f} images/s, "
                          f"{costs[who][-1]:5.1f} ms CPU each, peak {peak:.0f} MB",
                          flush=True)  # fmt: skip
            medians = {who: statistics.median(values) for who, values in rates.items()}
            results[f"ratio_{side}_{scheme}"] = round(medians["ours"] / medians["peer"], 2)
            results[f"cpu_ratio_{side}_{scheme}"] = round(
                statistics.median(costs["peer"]) / statistics.median(costs["ours"]), 2
            )
            results[f"images_per_second_{side}_{scheme}"] = round(medians["ours"], 1)
            results[f"peer_images_per_second_{side}_{scheme}"] = round(medians["peer"], 1)
    results |= pixel_gate(paths[:: max(1, len(paths) // 300)])
    results["peak_mb"] = round(max(peaks["ours"]))
    results["peer_peak_mb"] = round(max(peaks["peer"]))
    results["load"] = [round(value, 1) for value in os.getloadavg()]
    results["settings"] = {
        "images": len(paths), "megabytes": round(megabytes), "rounds": args.rounds,
        "cores": os.cpu_count(), "concurrency": CONCURRENCY, "decoding_threads": decoding_threads(),
        "jpeg": "q95 4:4:4", "politeness": "off",
    }  # fmt: skip
    results["peer_settings"] = {
        "version": "1.47", "processes_count": args.peer_processes,
        "thread_count": args.peer_threads, "resize_mode": "center_crop", "jpeg": "q95 4:2:0",
    }  # fmt: skip
    for key, value in results.items():
        print(f"{key:32} {value}")
    if args.json:
        print(json.dumps(results))


def one_run(
    who: str,
    args: argparse.Namespace,
    urls: Path,
    out: Path,
    side: int,
    environment: dict[str, str],
) -> tuple[float, float, float]:
    """Return seconds, CPU seconds and peak memory (MB, proportional) of one run's process tree."""
    shutil.rmtree(out, ignore_errors=True)
    if who == "ours":
        command = [sys.executable, __file__, "--ours", str(urls), str(out), str(side)]
    else:
        command = [
            str(args.peer_python), "-c", PEER, str(urls), str(out), str(side),
            str(args.peer_processes), str(args.peer_threads),
        ]  # fmt: skip
    start, before = time.perf_counter(), _cpu_of_children()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        watch = _PeakMemory(process.pid)
        _, errors = process.communicate()
        seconds = time.perf_counter() - start
        watch.stop()
    stored = sum(
        1 for path in out.rglob("*.tar") for name in _members(path) if name.endswith("jpg")
    )
    if process.returncode or stored != args.images:
        sys.exit(f"{who}: {stored} of {args.images} images stored, status {process.returncode}\n"
                 f"{errors[-2000:]}")  # fmt: skip
    return seconds, _cpu_of_children() - before, watch.peak / 1e6


def _cpu_of_children() -> float:
    """Return the CPU seconds of all processes that ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _members(path: Path) -> list[str]:
    import tarfile

    with tarfile.open(path) as tar:
        return tar.getnames()


class _PeakMemory:
    """Samples the proportional set size of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, sum(_pss(pid) for pid in _tree(self._pid)))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if "Pss:" in line), 0)


def pixel_gate(paths: list[Path]) -> dict[str, float]:
    """Return the PSNR of this project's pixels, before JPEG encoding, against a full decode and
    Lanczos by Pillow."""
    results: dict[str, float] = {}
    both: list[float] = []
    for side in (256, 64):
        values = [_psnr(path, side) for path in paths]
        both += values
        results[f"psnr_median_{side}"] = round(statistics.median(values), 1)
        results[f"psnr_min_{side}"] = round(min(values), 1)
    results["psnr_median"] = min(results["psnr_median_256"], results["psnr_median_64"])
    results["psnr_min"] = round(min(both), 1)
    return results


def _psnr(path: Path, side: int) -> float:
    data = path.read_bytes()
    with Image.open(path) as file:
        width, height = file.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        truth = file.convert("RGB").resize(
            (side, side), Image.Resampling.LANCZOS, box=(left, top, left + short, top + short)
        )
    made = center_square(data, side, max_pixels=1 << 30).pixels.astype(np.float64)
    error = float(((made - np.asarray(truth, dtype=np.float64)) ** 2).mean())
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


@contextmanager
def nginx(photos: Path, work: Path) -> Iterator[tuple[str, str, Path]]:
    """Run nginx with one worker on loopback; yields the base URLs for HTTP and HTTPS, and the
    certificate to trust."""
    certificate, key = work / "certificate.pem", work / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    # Added to the usual authorities, because loading those is part of the cost of TLS.
    trusted = work / "trusted.pem"
    trusted.write_text(Path(certifi.where()).read_text() + certificate.read_text())
    plain, secure = _free_port(), _free_port()
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (work / name).mkdir()
    config = work / "nginx.conf"
    config.write_text(f"""
daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; types {{ image/jpeg jpg; }}
  keepalive_requests 100000;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{secure} ssl; root {photos.resolve()};
    ssl_certificate {certificate}; ssl_certificate_key {key};
  }}
}}
""")
    process = subprocess.Popen(["nginx", "-c", config, "-p", work, "-e", work / "error.log"])
    try:
        _wait_for(plain, process)
        yield f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}", trusted
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket

    for _ in range(100):
        if process.poll() is not None:
            sys.exit("nginx did not start")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("nginx does not answer")


if __name__ == "__main__":
    main()
