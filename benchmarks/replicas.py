"""What does Ray cost a request, and what does batching gain? Run: python -m benchmarks.replicas."""

import asyncio
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import serve

import mylinear
from benchmarks.report import environment, ratio, summarise, write
from mylinear.data import Digits
from mylinear.export import export
from mylinear.training import train
from ort_ops import deploy, parity
from ort_ops.deploy.ray import Handle, application, predict

QUESTION = "What does a Ray deployment cost a request, and what does dynamic batching gain?"
NOTE = (
    "The trained digits model (64, 128, 64, 10; float32) from the C++ library, one replica with one thread, "
    "on loopback; client, Ray and replica share the machine. A request is one image. One at a time: medians "
    "of 300 requests; overhead is what is above the session's own time. 256 on their way at once: 5 rounds "
    "of 2,000 requests, taken in turn; a ratio is to the row without batching. In brackets between what nine "
    "of ten lie. A replica batches up to 64 rows, a handle sends up to 64 requests as one call. The dataset "
    "is run once, and starting the replica is in its time."
)
COLUMNS = ("how", "requests", "time a request, µs", "requests a second", "against no batching")
_IN_FLIGHT, _ROUNDS, _REQUESTS = 256, 5, 2000

# Where batches are made up to 64: in the replica, in the handle.
_BATCHING = {
    "Ray Serve, no batching": (0, 0),
    "Ray Serve, the replica batches": (64, 0),
    "Ray Serve, the handle batches": (0, 64),
    "Ray Serve, both batch": (64, 64),
}


def make_bundle(folder: Path) -> tuple[Path, NDArray[np.float32]]:
    """Return a bundle of the trained digits model, and images that it wasn't trained on."""
    task = Digits()
    model = train(task).model.cpu().eval()
    library = mylinear.get_library_path()
    export(model, folder / "digits.onnx", example=torch.rand(2, 64))
    parity.record(model, folder / "digits.onnx", folder / "golden", libraries=[library])
    deploy.bundle(folder / "digits.onnx", folder / "bundle", libraries=[library], golden=folder / "golden")
    return folder / "bundle", task.held_out[0].numpy()


def one_at_a_time(call: Callable[[], object]) -> list[float]:
    """Return the seconds of each of 300 calls."""
    for _ in range(50):
        call()
    seconds = []
    for _ in range(300):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


async def many_at_once(handle: Handle, x: NDArray[np.float32]) -> float:
    """Return the seconds a request of 2,000, of which 256 are on their way at once."""
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def ask() -> None:
        async with gate:
            await handle.run_async(None, {"x": x})

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(_REQUESTS)))
    return (time.perf_counter() - start) / _REQUESTS


def start_ray(temporary: str) -> None:
    """Start Ray on loopback."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S"] = "2"
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.2",
        _temp_dir=temporary,
    )
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})


def serve_bundle(bundle: Path, max_batch: int) -> Any:
    """Return Ray's handle of an application of the bundle."""
    name = f"batch{max_batch}"
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    app = application(bundle, max_batch=max_batch, max_ongoing_requests=_IN_FLIGHT, logging_config=quiet)
    return serve.run(app, name=name, route_prefix=None)


def main() -> None:
    temporary = tempfile.mkdtemp(prefix="ray-")
    bundle, images = make_bundle(Path(temporary))
    x = images[:1]
    rows, raw = [], []

    def add(how: str, requests: str, seconds: list[float], against: list[float] | None = None) -> None:
        timing = summarise(seconds)
        a_second = 1e6 / timing.median_us
        gain = None if against is None else ratio(against, seconds)
        rows.append((how, requests, timing.text, f"{a_second:,.0f}", gain.text if gain else ""))
        numbers = {"how": how, "requests": requests, "us": timing.median_us}
        raw.append(numbers | (dataclasses.asdict(gain) if gain else {}))
        print(rows[-1], flush=True)

    session = deploy.open_bundle(bundle).session(["CPUExecutionProvider"])
    add("session.run in this process", "one at a time", one_at_a_time(lambda: session.run(None, {"x": x})))
    start_ray(temporary)
    served = {max_batch: serve_bundle(bundle, max_batch) for max_batch in (0, 64)}
    handles = {how: Handle(served[replica], max_batch=handle) for how, (replica, handle) in _BATCHING.items()}
    for how, handle in handles.items():
        add(how, "one at a time", one_at_a_time(lambda handle=handle: handle.run(None, {"x": x})))
    seconds: dict[str, list[float]] = {how: [] for how in handles}
    for turn in range(_ROUNDS + 1):
        for how, handle in handles.items():
            seconds[how].append(asyncio.run(many_at_once(handle, x)))
        if turn == 0:  # warm
            seconds = {how: [] for how in handles}
    for how, values in seconds.items():
        add(how, f"{_IN_FLIGHT} at once", values, seconds["Ray Serve, no batching"])
    for handle in handles.values():
        handle.close()
    serve.shutdown()
    whole = np.resize(images, (200_000, images.shape[1]))
    data = ray.data.from_numpy(whole).rename_columns({"data": "x"}).materialize()
    start = time.perf_counter()
    count = predict(data, bundle, batch_size=4096).materialize().count()
    add("Ray Data, 4,096 rows a run", f"{count:,} rows", [(time.perf_counter() - start) / count])
    ray.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)
    packages = ("ray", "numpy", "onnxruntime")
    print(write("replicas", QUESTION, NOTE, COLUMNS, rows, raw, environment(packages)))


if __name__ == "__main__":
    main()
