"""A bundle on real Ray, on loopback: answers, errors, replicas that die, and such as don't take traffic."""

import asyncio
import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ray = pytest.importorskip("ray")

from ray import serve  # noqa: E402
from ray.exceptions import ActorDiedError, RayActorError  # noqa: E402

import ort_ops  # noqa: E402
from ort_ops import deploy, parity  # noqa: E402
from ort_ops.deploy.ray import Handle, application, predict  # noqa: E402
from ort_ops.errors import BundleError, KernelError, ParityError  # noqa: E402
from tests.keys import write_keys  # noqa: E402
from tests.ort_ops.deploy import marking  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own
KERNELS = [marking.__name__]
QUIET = {"log_level": "ERROR", "enable_access_log": False}


class Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 2 * x

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("tests::Marking", x).setType(x.type())


class Marked(torch.nn.Module):
    """2·x; and, where rows are mixed, the softmax over all of them."""

    def __init__(self, *, mixed: bool) -> None:
        super().__init__()
        self._mixed = mixed

    def forward(self, x: Any) -> Any:
        y = Mark.apply(x)
        return torch.softmax(y, 0) if self._mixed else y


def make_bundle(folder: Path, *, mixed: bool = False) -> Path:
    model = Marked(mixed=mixed).eval()
    batch = torch.export.Dim("batch")
    file, golden, out = folder / "model.onnx", folder / "golden", folder / "bundle"
    ort_ops.export.export(
        model, (torch.randn(2, 3),), file, input_names=["x"], output_names=["y"], dynamic_shapes=({0: batch},)
    )
    parity.record(model, file, golden)
    deploy.bundle(file, out, golden=golden)
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the kernel leaves a file for each of its long runs."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module", autouse=True)
def cluster(marks: Path) -> Iterator[None]:
    """Start Ray on loopback; "127.0.0.1" it would take for the machine's own address."""
    temporary = tempfile.mkdtemp(prefix="ray-")  # its sockets' paths may not be long
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "2")
        patch.setenv("MARKS", str(marks))
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.2",
            _temp_dir=temporary,
        )
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        yield
        serve.shutdown()
        ray.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(autouse=True)
def applications() -> Iterator[None]:
    """End what a test started: replicas take CPUs, and replay golden answers as long as they live."""
    yield
    for name in serve.status().applications:
        serve.delete(name, _blocking=False)


def run_app(folder: Path, name: str, **options: Any) -> Any:
    """Run an application; returns Ray's handle."""
    app = application(folder, modules=KERNELS, health_check_period_s=1, logging_config=QUIET, **options)
    return serve.run(app, name=name, route_prefix=None)


def long_request(number: int) -> Any:
    return np.array([[marking.LONG, number, number]], np.float32)


def started(marks: Path) -> list[Path]:
    """Return a file for each long run that has begun."""
    return [mark for mark in marks.iterdir() if mark.suffix != ".done"]


def kill_one_of_two(marks: Path, send: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """Send long requests until two replicas are in the middle of some, and kill one of these.

    Returns what was sent, and what ``send`` returned.
    """
    seen, sent = set(started(marks)), []
    for number in range(150):
        # A busy machine may be long in starting a replica anew; then each gets a run of a second.
        for _ in range(1 if number < 30 else 2):
            sent.append((x := long_request(number), send(x)))
        for _ in range(1 if number < 30 else 10):
            time.sleep(0.1)
            marked = set(started(marks)) - seen
            pending = {mark for mark in marked if not mark.with_suffix(".done").exists()}
            running = {int(mark.name.partition("-")[0]) for mark in pending}
            if len(running) == 2:
                os.kill(running.pop(), signal.SIGKILL)
                return sent
    raise AssertionError("two replicas never ran at once")


def test_a_replica_that_is_killed_costs_no_request(bundle: Path, marks: Path) -> None:
    raw = run_app(bundle, "killed", replicas=2)
    # Ray's own handle: the failure is seen.
    sent = kill_one_of_two(marks, lambda x: raw.answer.remote([(None, {"x": x})]))
    failed = 0
    for x, response in sent:
        try:
            ((answer,),) = response.result()
        except ActorDiedError:
            failed += 1
        else:
            assert np.array_equal(answer, 2 * x)
    assert failed > 0
    # Ours: every request is answered, what the dead one had a second time.
    before = len(started(marks))
    with Handle(raw) as handle:
        sent = kill_one_of_two(marks, lambda x: handle.submit(None, {"x": x}))
        for x, future in sent:
            assert np.array_equal(future.result(300)[0], 2 * x)
    assert len(started(marks)) - before > len(sent)


@pytest.mark.parametrize("max_batch", [0, 4])
def test_requests_have_the_sessions_answers_and_errors(bundle: Path, max_batch: int) -> None:
    raw = run_app(bundle, f"batch{max_batch}", max_batch=max_batch, delay_us=1000)
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal((rows, 3)).astype(np.float32) for rows in (1, 2, 0, 3, 9, 1)] * 4
    with Handle(raw, max_batch=max_batch) as handle:
        for x, future in [(x, handle.submit(None, {"x": x})) for x in feeds]:
            (y,) = future.result(60)
            assert y.dtype == np.float32
            assert np.array_equal(y, 2 * x)

        async def await_all() -> list[Any]:
            return await asyncio.gather(*(handle.run_async(["y"], {"x": x}) for x in feeds))

        for x, (y,) in zip(feeds, asyncio.run(await_all()), strict=True):
            assert np.array_equal(y, 2 * x)
        bad = handle.submit(None, {"x": np.full((1, 3), -np.inf, np.float32)})
        good = handle.submit(None, {"x": feeds[0]})
        with pytest.raises(KernelError, match="negative infinity") as raised:
            bad.result(60)
        assert any("ArithmeticError" in note and "marking.py" in note for note in raised.value.__notes__)
        assert np.array_equal(good.result(60)[0], 2 * feeds[0])
        with pytest.raises(ValueError, match="has no output z; it has y"):
            handle.run(["z"], {"x": feeds[0]})
        with pytest.raises(ValueError, match="Required inputs"):
            handle.run(None, {"z": feeds[0]})
        with pytest.raises(TimeoutError):
            handle.run(None, {"x": long_request(0)}, timeout_s=0.01)


def test_replicas_that_answer_wrongly_take_no_traffic(tmp_path: Path) -> None:
    mixed = make_bundle(tmp_path, mixed=True)
    run_app(mixed, "mixed")  # right as long as each request runs by itself
    with pytest.raises(RuntimeError, match="mixed8"):
        run_app(mixed, "mixed8", max_batch=8)


INFLUENCES = {
    "none": lambda x: x * 2,
    "a row before": lambda x: x.cumsum(0),
    "a row behind": lambda x: x.flip(0).cumsum(0).flip(0),
    "the first row": lambda x: x - x[:1],
    "the mean": lambda x: x - x.mean(0),
    "the largest": lambda x: x - x.amax(0),
    "the smallest": lambda x: x - x.amin(0),
    "softmax": lambda x: x.softmax(0),
}


ROWS = [[0.3, 1.2, 0.8], [-0.5, -1.5, -0.4], [2.0, -0.1, 0.0], [-0.9, 0.7, -3.0]]


class Influenced(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Any) -> Any:
        return INFLUENCES[self.kind](x)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        *((kind, 4) for kind in INFLUENCES),
        *((kind, 1) for kind in ("none", "the mean", "the largest", "the smallest", "softmax")),
    ],
)
def test_rows_that_influence_one_another_are_refused(kind: str, rows: int, tmp_path: Path) -> None:
    from ort_ops.deploy.ray.data import _Predictor
    from ort_ops.deploy.ray.replica import ReplicaSetting

    model, x = Influenced(kind).eval(), torch.tensor(ROWS)[:rows]
    file, golden = tmp_path / "model.onnx", tmp_path / "golden"
    ort_ops.export.export(
        model, (x,), file, input_names=["x"], dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
    )
    parity.record(model, file, golden, (x,))
    deploy.bundle(file, tmp_path / "bundle", golden=golden)
    setting = ReplicaSetting(str(tmp_path / "bundle"))
    if kind == "none":
        _Predictor(setting)
    else:
        with pytest.raises(ParityError, match="doesn't give the bundle's golden answers"):
            _Predictor(setting)


def test_a_dataset_has_the_outputs_beside_its_columns(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    rows = ray.data.from_items([{"x": each, "number": i} for i, each in enumerate(x)])
    done = predict(rows, bundle, modules=KERNELS, replicas=2, batch_size=100).to_pandas()
    order = done["number"].to_numpy()
    assert sorted(order) == list(range(1000))
    assert np.array_equal(np.stack(done["y"]), 2 * x[order])
    assert np.stack(done["y"]).dtype == np.float32
    assert "Running Dataset" in caplog.text  # its bar, where there is a terminal


def test_a_warning_says_that_nobody_would_be_left_to_read(bundle: Path) -> None:
    rows = ray.data.from_items([{"x": np.ones(3, np.float32)}])
    with pytest.warns(UserWarning, match=r"2 replicas take 4 of the 4 CPUs that Ray has, and reading"):
        predict(rows, bundle, modules=KERNELS, replicas=2, threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(rows, bundle, modules=KERNELS, replicas=3)
        predict(rows, bundle, modules=KERNELS, replicas=4, num_cpus=0.5)


def test_rows_that_are_lists_are_stacked(bundle: Path) -> None:
    from ort_ops.deploy.ray.data import _Predictor
    from ort_ops.deploy.ray.replica import ReplicaSetting

    column = np.empty(2, object)
    column[:] = [np.ones(3, np.float32), np.zeros(3, np.float32)]
    done = _Predictor(ReplicaSetting(str(bundle), modules=KERNELS))({"x": column})
    assert done["y"].tolist() == [[2, 2, 2], [0, 0, 0]]


def test_the_pages_lines_run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```py\n(import ray\n.*?)```", page, re.DOTALL)
    lines = lines.replace("serve.shutdown()", "serve.delete('default')")  # other tests need the rest of it
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, "linear-1.0")
    x = np.ones((1, 3), np.float32)
    rows, answers = str(tmp_path / "rows"), str(tmp_path / "answers")
    ray.data.from_numpy(np.ones((10, 3), np.float32)).rename_columns({"data": "x"}).write_parquet(rows)
    lines = lines.replace('"/data/rows"', repr(rows)).replace('"/data/answers"', repr(answers))
    # The bundle's kernel is in Python, and has to be named; the page's is in the bundle.
    lines = lines.replace('("linear-1.0", replicas', f'("linear-1.0", modules={KERNELS}, replicas')
    lines = lines.replace('"linear-1.0", replicas=2)', f'"linear-1.0", modules={KERNELS}, replicas=2)')
    names: dict[str, Any] = {"x": x}
    exec(lines, names)
    assert np.array_equal(names["y"], 2 * x)
    assert ray.data.read_parquet(answers).count() == 10


def test_what_is_altered_or_unproved_is_refused(bundle: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    deploy.bundle(bundle / "model" / "model.onnx", plain)
    with pytest.raises(BundleError, match="no golden answers"):
        application(plain)
    with pytest.raises(BundleError, match="no golden answers"):
        predict(ray.data.from_items([{"x": 1}]), plain)
    with pytest.raises(BundleError, match="is not signed"):
        application(bundle, verify_key=write_keys(tmp_path, "key")[1])
    altered = tmp_path / "altered"
    shutil.copytree(bundle, altered)
    (altered / "model" / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="is altered"):
        application(altered)


def test_a_replica_replays_every_answer_first_and_the_first_one_later(bundle: Path) -> None:
    from ort_ops.deploy.ray.replica import Replica, ReplicaSetting

    replica = Replica(ReplicaSetting(str(bundle), modules=KERNELS))
    lengths: list[int] = []

    def run(feeds: Any) -> Any:
        lengths.append(len(feeds))
        return replica.run_each(feeds)

    replica.check(run, run)
    replica.check(run)
    assert lengths == [3, 3, 1]

    def run_wrongly(feeds: Any) -> Any:
        return [[y + 1e-3 for y in outputs] for outputs in replica.run_each(feeds)]

    with pytest.raises(ParityError, match="doesn't give the bundle's golden answers"):
        replica.check(run_wrongly)


class Dying:
    """A handle of Ray's whose replica dies so many times."""

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def options(self, **_: Any) -> "Dying":
        return self

    async def remote(self, requests: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise ActorDiedError
        return [[feed["x"]] for _, feed in requests]


@pytest.mark.parametrize("max_batch", [0, 2])
def test_retries_are_bounded(max_batch: int) -> None:
    x = np.ones(1)
    dying: Any = Dying(2)
    with Handle(dying, retries=2, backoff_s=0.001, max_batch=max_batch) as handle:
        assert handle.run(None, {"x": x})[0] is x
    dying = Dying(3)
    with Handle(dying, retries=2, backoff_s=0.001, max_batch=max_batch) as handle:
        with pytest.raises(RayActorError):
            handle.run(None, {"x": x})
        assert dying.calls == 3
        assert handle.run(None, {"x": x})[0] is x
    handle.close()  # a second time changes nothing
    with pytest.raises(RuntimeError, match="closed"):
        handle.run(None, {"x": x})


@pytest.mark.parametrize("max_batch", [0, 2])
def test_each_request_ends_whenever_the_handle_is_closed(max_batch: int) -> None:
    x = np.ones(1)
    ended: list[Any] = []
    for _ in range(20):
        dying: Any = Dying(10**6)
        handle = Handle(dying, retries=30, backoff_s=0.001, max_batch=max_batch)
        first = handle.submit(None, {"x": x})

        def submit_until_refused(handle: Handle = handle) -> None:
            with contextlib.suppress(RuntimeError):
                while True:
                    ended.append(handle.submit(None, {"x": x}))

        submitting = threading.Thread(target=submit_until_refused)
        submitting.start()
        handle.close()
        submitting.join()
        with pytest.raises(concurrent.futures.CancelledError):
            first.result(60)
    assert ended
    assert not concurrent.futures.wait(ended, timeout=60).not_done
