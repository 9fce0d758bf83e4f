"""The README of a bundle: how a model and its libraries are loaded, language by language."""

from collections.abc import Sequence

from ort_ops.model import Value

from .manifest import Needs

__all__ = ["readme"]


def readme(
    model: str, libraries: Sequence[str], *, has_golden: bool, needs: Sequence[Needs], inputs: Sequence[Value]
) -> str:
    """Return the text; paths are from the bundle's folder."""
    parts = [f"# {model.rpartition('/')[2]}", _what(needs), _inputs(inputs)]
    if has_golden:
        parts.append(
            "Is it intact, and does this machine compute what PyTorch does?\n\n"
            "```sh\npip install 'ort-ops[cpu,cli]'\nort-ops replay .\n```"
        )
    for language, code, before, each, after in _LANGUAGES:
        lines = [before, *(each.format(library=library) for library in libraries), after.format(model=model)]
        body = "\n".join(line for line in lines if line)
        parts.append(f"## {language}\n\n```{code}\n{body}\n```")
    parts.append(
        "Paths are from this folder. `manifest.json` has every file's SHA-256; whoever can change a file "
        "can change that, too, so compare it with the one that you were given, or have it signed."
    )
    return "\n\n".join(parts) + "\n"


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
