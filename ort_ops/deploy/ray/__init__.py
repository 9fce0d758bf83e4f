"""A bundle on many machines with Ray: served by replicas, or run over a dataset.

``application`` makes a Ray Serve application of a bundle, ``Handle`` sends it requests, ``predict`` runs a
bundle over a Ray dataset. Every replica opens the bundle, which checks its files, and replays its golden
answers before it takes any work. A replica may die in the middle of a request, which is then sent again:
**requests are executed at least once**, so kernels must be stateless. Needs ``pip install 'ort-ops[ray]'``.
"""

try:
    import ray as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ort_ops.deploy.ray needs Ray: pip install 'ort-ops[ray]'", name="ray"
    ) from error

from .data import predict
from .handle import Handle
from .serving import application

__all__ = ["Handle", "application", "predict"]
