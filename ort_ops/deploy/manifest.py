"""What a bundle says of itself: ``manifest.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ort_ops.errors import BundleError

from .needs import Needs
from .optimizing import Optimized
from .processor import Processor

__all__ = ["FORMAT", "MANIFEST", "Manifest", "name_in_answers", "read_manifest", "refuse_unnameable"]

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """A bundle's content; every path is from the bundle's folder, with ``/`` between its parts.

    model, libraries, golden: what a session is made of, and what it is checked against; golden is None where
        there are no answers.
    files: SHA-256 by path, of all that is in the bundle but for the manifest itself and its signature.
    needs: who runs the operators that aren't ONNX Runtime's own. ir_version, opsets: what the model asks for.
    versions: of what the bundle was made with.
    optimized: the graph as ONNX Runtime optimised it, and for what; None where there is none.
    """

    format: int
    model: str
    libraries: Sequence[str]
    golden: str | None
    files: Mapping[str, str]
    needs: Sequence[Needs]
    ir_version: int
    opsets: Mapping[str, int]
    versions: Mapping[str, str]
    optimized: Optimized | None = None

    def to_json(self) -> str:
        """Return the content of ``manifest.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises BundleError where there is none, where it isn't one, and where a path in it leads out of the folder
    or to a file that it has no SHA-256 for.
    """
    path = folder / MANIFEST
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BundleError(f"{path} is a link, or no file; expected the file itself")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise BundleError(f"{path} is of format {found}; expected {FORMAT}")
        if not isinstance(content["files"], dict):
            raise TypeError(f"files is a {type(content['files']).__name__}")
        needs = [Needs(**each) for each in content["needs"]]
        optimized = _optimized(content.get("optimized"))
        manifest = Manifest(**{**content, "needs": needs, "optimized": optimized})
        _check_types(manifest)
    except FileNotFoundError:
        raise BundleError(f"{folder} is no bundle: {MANIFEST} is missing") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} is no manifest of a bundle: {error}") from error
    for name in manifest.files:
        _refuse_outside(name)
    loaded = [manifest.model, *manifest.libraries, *([manifest.golden] if manifest.golden else [])]
    loaded += [manifest.optimized.model] if manifest.optimized else []
    for name in loaded:
        if name not in manifest.files:
            raise BundleError(f"{path} names {name!r}, and no SHA-256 of it")
    return manifest


def _optimized(content: dict[str, Any] | None) -> Optimized | None:
    if content is None:
        return None
    return Optimized(**{**content, "processor": Processor(**content["processor"])})


def _check_types(manifest: Manifest) -> None:
    """Raise TypeError where the manifest has something else than a text, a number or a list belongs."""
    mappings: list[Any] = [manifest.files, manifest.opsets, manifest.versions]
    _require(mappings, dict, "an object")
    lists: list[Any] = [manifest.libraries]
    texts: list[Any] = [manifest.model, *manifest.libraries, *manifest.files, *manifest.files.values()]
    texts += manifest.versions.values()
    numbers: list[Any] = [manifest.ir_version, *manifest.opsets.values()]
    for each in manifest.needs:
        texts += [each.op, each.by]
        numbers.append(each.nodes)
    if manifest.golden is not None:
        texts.append(manifest.golden)
    if manifest.optimized is not None:
        made, processor = manifest.optimized, manifest.optimized.processor
        lists += [made.bodies, processor.instructions]
        texts += [made.model, made.provider, made.onnxruntime, *made.bodies]
        texts += [processor.machine, *processor.instructions]
    _require(lists, list, "a list")
    _require(texts, str, "a text")
    _require(numbers, int, "a number")


def _require(values: Sequence[Any], kind: type, named: str) -> None:
    for each in values:
        if not isinstance(each, kind):
            raise TypeError(f"{each!r} where {named} belongs")


def name_in_answers(place: str, model: str) -> str:
    """Return by which name golden answers know a file of a bundle; ``model`` is the model's place there.

    It is the path from the model's folder, and of libraries, which were elsewhere, the name alone.
    """
    path, home = PurePosixPath(place), PurePosixPath(model).parent
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else path.name


def refuse_unnameable(name: str) -> None:
    """Raise BundleError for a path that a bundle can't have, or programs in its README can't name."""
    _refuse_outside(name)
    if not name.isprintable():
        raise BundleError(f"{name!r} has a character that programs can't name as it is; rename the file")


def _refuse_outside(name: str) -> None:
    path = PurePosixPath(name)
    parts = name.split("/")
    if path.is_absolute() or "\\" in name or ":" in parts[0] or not name or {"", ".", ".."} & set(parts):
        raise BundleError(f"the manifest names {name!r}, which is no plain path inside of the bundle")
