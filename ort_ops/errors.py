"""Everything that ort_ops raises on purpose.

::

    OrtOpsError
    ├── MissingRuntimeError    (ImportError)   onnxruntime is missing, or two of them are installed
    ├── UnsupportedPythonError (ImportError)   free-threaded Python with its lock forced off
    ├── SchemaError            (TypeError)     a kernel's signature can't be an operator
    ├── RegistrationError      (RuntimeError)  two kernels for one thing, or two libraries for one domain
    ├── NoKernelError          (RuntimeError)  nobody can run a node of the model
    ├── ModelError             (ValueError)    a file that is no ONNX model
    ├── ProviderError          (RuntimeError)  an execution provider that was asked for can't be had
    ├── KernelError            (RuntimeError)  a kernel failed while a session ran; __cause__ is its exception
    │   └── ResultError                        it returned, but not what the operator promises
    ├── ExportError            (RuntimeError)  a model could not be exported faithfully
    ├── ParityError            (RuntimeError)  a comparison that can't be made
    └── BundleError            (RuntimeError)  a bundle that is altered, or can't be made
"""


class OrtOpsError(Exception):
    """The root of the tree above: what is wrong with models, kernels, files, providers and comparisons.

    An argument that a call doesn't take is a plain ValueError or TypeError.
    """


class MissingRuntimeError(OrtOpsError, ImportError):
    """ONNX Runtime is not installed, or two distributions of it are in each other's way."""


class UnsupportedPythonError(OrtOpsError, ImportError):
    """Free-threaded Python is run without its global interpreter lock, which the native bridge needs."""


class SchemaError(OrtOpsError, TypeError):
    """A kernel's signature or its declaration can't be an operator's schema."""


class RegistrationError(OrtOpsError, RuntimeError):
    """Two kernels claim one operator, type and provider, or two libraries claim one domain."""


class NoKernelError(OrtOpsError, RuntimeError):
    """Nobody can run a node of the model; raised as ONNX Runtime's own exception (``Fail``, ...), too."""


class ModelError(OrtOpsError, ValueError):
    """A file or byte string is not an ONNX model that can be read."""


class ProviderError(OrtOpsError, RuntimeError):
    """An execution provider was asked for that this installation or machine doesn't have."""


class KernelError(OrtOpsError, RuntimeError):
    """A kernel raised while a session ran. ``__cause__`` is the kernel's own exception."""


class ResultError(KernelError):
    """A kernel returned something that is not what its operator promises."""


class ExportError(OrtOpsError, RuntimeError):
    """A model could not be exported so that the file computes what the model does."""


class ParityError(OrtOpsError, RuntimeError):
    """A comparison was asked for that can't be made."""


class BundleError(OrtOpsError, RuntimeError):
    """A bundle is not what its manifest says, or can't be made."""
