"""The README of a bundle: how a model and its libraries are loaded, language by language."""

from collections.abc import Mapping, Sequence

from ort_ops.model import Value

from .manifest import Manifest
from .needs import Needs
from .optimizing import Optimized

__all__ = ["readme"]


def readme(
    manifest: Manifest,
    inputs: Sequence[Value],
    kernels: Mapping[str, Sequence[str]],
    modules: Sequence[str],
    *,
    signed: bool,
) -> str:
    """Return the text; paths are from the bundle's folder.

    kernels: the functions that are the kernels of those operators which Python runs. modules: that register
    them, as far as it was said.
    """
    model = manifest.model
    parts = [f"# {model.rpartition('/')[2]}", _what(manifest.needs)]
    if kernels:
        parts.append(_kernels(kernels, modules))
        modules = modules or ["MODULE"]
    parts.append(_inputs(inputs))
    registering = "".join(f" --kernels {module}" for module in modules) if kernels else ""
    if manifest.golden is not None:
        parts.append(
            "Is it intact, and does this machine compute what PyTorch does?\n\n"
            f"```sh\npip install 'ort-ops[cpu,cli]'\nort-ops replay .{registering}\n```"
        )
    if manifest.optimized is not None:
        parts.append(_optimized(manifest.optimized))
    for language, code, before, each, after in _by_kernels(modules) if kernels else _LANGUAGES:
        libraries = (each.format(library=_in_quotes(library)) for library in manifest.libraries)
        lines = [before, *libraries, after.format(model=_in_quotes(model))]
        body = "\n".join(line for line in lines if line)
        parts.append(f"## {language}\n\n```{code}\n{body}\n```")
    parts.append(_SIGNED.format(registering=registering) if signed else _UNSIGNED)
    return "\n\n".join(parts) + "\n"


def _in_quotes(name: str) -> str:
    """Return a path as it stands between quotes, in any of these languages."""
    return name.replace('"', '\\"')


def _kernels(kernels: Mapping[str, Sequence[str]], modules: Sequence[str]) -> str:
    """Say what is not in the folder."""
    rows = "\n".join(f"- {op}: {', '.join(f'`{name}`' for name in names)}" for op, names in kernels.items())
    named = ", ".join(f"`{module}`" for module in modules) or "the module that registers it (`MODULE` below)"
    return (
        f"**This folder is not all that the model needs: a kernel in Python is not in it.**\n\n{rows}\n\n"
        f"On the target, import {named} before a session is made. The model runs in Python alone: C, C++, "
        "C#, Java, Rust and servers such as Triton can't make a session of it."
    )


def _by_kernels(modules: Sequence[str]) -> Sequence[tuple[str, str, str, str, str]]:
    """Return the lines for Python with kernels in these modules."""
    language, code, _, each, after = _LANGUAGES[0]
    imports = "\n".join(f"import {module}  # registers kernels" for module in modules)
    before = f"import onnxruntime\n\nimport ort_ops\n{imports}\n\noptions = onnxruntime.SessionOptions()"
    return [(language, code, before, each, after.replace("onnxruntime.Inf", "ort_ops.Inf"))]


_UNSIGNED = (
    "Paths are from this folder. `manifest.json` has every file's SHA-256; whoever can change a file "
    "can change that, too, so compare it with the one that you were given, or have it signed "
    "(`ort-ops bundle --sign-key`)."
)
_SIGNED = """\
Paths are from this folder. `model.sig` signs every other file in it. With the signer's public key:

```sh
pip install 'ort-ops[cpu,cli,sign]'
ort-ops replay . --verify-key public.pem{registering}
model_signing verify key . --signature model.sig --public_key public.pem    # the same, without ort-ops
```"""


def _optimized(made: Optimized) -> str:
    return (
        f"`{made.model}` is the graph as ONNX Runtime {made.onnxruntime} optimised it for {made.provider} on "
        f"{made.processor.machine} with the vector instructions that `manifest.json` lists. With another "
        "release or on another processor its answers may be wrong. `ort_ops.deploy.open_bundle` uses it only "
        "where it fits; whoever loads it by other means has to look, and turns the optimisation off "
        "(`ORT_DISABLE_ALL`). The lines below load the original."
    )


def _what(needs: Sequence[Needs]) -> str:
    if not needs:
        return "Every operator is ONNX Runtime's own."
    rows = "\n".join(f"| {each.op} | {each.nodes} | {each.by} |" for each in needs)
    return f"| operator | nodes | run by |\n|---|---|---|\n{rows}"


def _inputs(inputs: Sequence[Value]) -> str:
    return "Inputs: " + ", ".join(f"`{value.name}`" for value in inputs) + "."


_LANGUAGES = (
    (
        "Python",
        "python",
        "import onnxruntime\n\noptions = onnxruntime.SessionOptions()",
        'options.register_custom_ops_library("{library}")',
        'session = onnxruntime.InferenceSession("{model}", options)',
    ),
    (
        "C",
        "c",
        "OrtSessionOptions *options;\nORT_CHECK(api->CreateSessionOptions(&options));",
        'ORT_CHECK(api->RegisterCustomOpsLibrary_V2(options, ORT_TSTR("{library}")));',
        'OrtSession *session;\nORT_CHECK(api->CreateSession(env, ORT_TSTR("{model}"), options, &session));',
    ),
    (
        "C++",
        "cpp",
        "Ort::SessionOptions options;",
        'options.RegisterCustomOpsLibrary(ORT_TSTR("{library}"));',
        'Ort::Session session(env, ORT_TSTR("{model}"), options);',
    ),
    (
        "C#",
        "csharp",
        "using var options = new SessionOptions();",
        'options.RegisterCustomOpLibrary("{library}");',
        'using var session = new InferenceSession("{model}", options);',
    ),
    (
        "Java",
        "java",
        "var options = new OrtSession.SessionOptions();",
        'options.registerCustomOpLibrary("{library}");',
        'var session = OrtEnvironment.getEnvironment().createSession("{model}", options);',
    ),
    (
        "Rust (ort)",
        "rust",
        "let session = Session::builder()?",
        '    .with_operator_library("{library}")?',
        '    .commit_from_file("{model}")?;',
    ),
)
