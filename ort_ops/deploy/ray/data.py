"""A bundle run over a Ray dataset."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from ort_ops.deploy.batchable import check_batchable
from ort_ops.errors import BundleError
from ort_ops.model import read_model

from .independence import ways_together
from .replica import Replica, ReplicaSetting, prepare

__all__ = ["predict"]


def predict(
    dataset: ray.data.Dataset,
    folder: str | os.PathLike[str],
    *,
    provider: str = "cpu",
    replicas: int = 1,
    threads: int = 1,
    modules: Sequence[str] = (),
    batch_size: int = 256,
    allow_reduced_precision: bool = False,
    verify_key: str | os.PathLike[str] | None = None,
    **map_batches: Any,
) -> ray.data.Dataset:
    """Return the dataset with the model's outputs as further columns.

    dataset: with a column for each input, of its name, dtype and shape without the first dimension.
    batch_size: rows of one run. map_batches: more of what ``Dataset.map_batches`` takes. The other arguments
        are those of ``application``.

    Warns where the replicas take all CPUs of the cluster: reading takes one, too.

    Nothing runs before the dataset is consumed (``write_parquet``, ``iter_batches``, ...); Ray then shows a
    progress bar. Each replica checks the bundle's files and replays its golden answers first, together and
    taken apart, too: rows that influence one another can't be batched. What a replica had when it
    died, Ray runs again: at least once.

    Raises BundleError where the bundle is altered, has no golden answers, can't be batched, or where an
    output has the name of an input.
    """
    bundle, setting = prepare(folder, provider, threads, modules, allow_reduced_precision, verify_key)
    model = read_model(bundle.model)
    check_batchable(model)
    both = {value.name for value in model.inputs} & {value.name for value in model.outputs}
    if both:
        raise BundleError(f"{', '.join(sorted(both))} is an input and an output; expected a column for each")
    options = {
        "compute": ray.data.ActorPoolStrategy(size=replicas),
        "udf_modifying_row_count": False,
        **setting.resources,
        **map_batches,
    }
    _warn_of_too_many(replicas, options["num_cpus"])
    return dataset.map_batches(
        _Predictor,
        fn_constructor_args=(setting,),
        batch_size=batch_size,
        batch_format="numpy",
        **options,
    )


def _warn_of_too_many(replicas: int, cpus: float | None) -> None:
    """Warn where replicas leave no CPU to who reads the data, for which Ray would wait without a word."""
    resources: dict[str, float] = ray.cluster_resources() if ray.is_initialized() else {}  # type: ignore[no-untyped-call]
    there = resources.get("CPU", 0.0)
    taken = replicas * (cpus or 0.0)
    if 0.0 < there < taken + 1:
        warnings.warn(
            f"{replicas} replicas take {taken:g} of the {there:g} CPUs that Ray has, and reading takes one: "
            "unless the cluster grows this waits forever; expected fewer replicas or threads, or num_cpus=",
            stacklevel=3,
        )


class _Predictor:
    """One replica, as Ray Data calls it."""

    def __init__(self, setting: ReplicaSetting) -> None:
        self._replica = Replica(setting)
        self._replica.check(self._replica.run_each, *ways_together(self._replica))
        self._inputs = [value.name for value in self._replica.session.get_inputs()]

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        feed = {name: _dense(batch[name]) for name in self._inputs}
        return {**batch, **dict(zip(self._replica.names, self._replica.run(feed), strict=True))}


def _dense(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column as one array: rows that are lists come as an array of objects, one a row."""
    rows = column.dtype == object and len(column) and isinstance(column[0], np.ndarray | list)
    return np.stack(list(column)) if rows else np.ascontiguousarray(column)
