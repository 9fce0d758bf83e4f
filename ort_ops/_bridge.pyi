from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from typing_extensions import CapsuleType

_Type = tuple[int, tuple[int | str | None, ...] | None]

class Op:
    """One operator as ONNX Runtime sees it: a name, element types and an execution provider."""

    def __init__(
        self,
        domain: str,
        name: str,
        provider: str,
        kernel_name: str,
        inputs: Sequence[tuple[int, int]],
        outputs: Sequence[tuple[int, int]],
        attributes: list[tuple[str, int, bool, bool]],
        function: Callable[..., object],
        infer: Callable[[list[tuple[int, tuple[int | str | None, ...] | None]], dict[str, Any]], object]
        | None,
        told: int,
        by_call: bool,
        takes_out: bool,
        node_names: dict[str, str],
    ) -> None: ...

class SupportsDlpack:
    """What ``Call`` hands out: an object that speaks DLPack and, on the CPU, the buffer protocol."""

    def __dlpack__(self, *, stream: None = ...) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[Literal[1], Literal[0]]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Call:
    """A run of one node, valid while its kernel runs."""

    def inputs(self) -> list[SupportsDlpack | None]: ...
    def attributes(self) -> dict[str, object]: ...
    def output(self, index: int, shape: Sequence[int]) -> SupportsDlpack | None: ...
    def output_count(self) -> int: ...
    def output_shapes(self) -> list[list[int]]: ...
    def stream(self) -> int: ...
    def keep(self, object: object, /) -> None: ...
    def node(self) -> str: ...

def set_hooks(
    fail: Callable[[BaseException, str, str, bool], str],
    collect: Callable[[], None],
    discard: Callable[[str], None],
    hides: Callable[[Any], bool],
    reject: Callable[[object, list[int]], None],
    select: Callable[[str | None, str | None], tuple[list[tuple[str, list[Op]]], str]],
    result_error: type[Exception],
    pack: Callable[..., object],
    unpack: Callable[..., object],
    debug: bool,
    dtypes: list[np.dtype[np.generic] | None],
) -> None: ...
def address(array: Any) -> int: ...
def logged(
    make: Callable[[], object],
) -> tuple[list[tuple[str, str, str, str, str]], list[BaseException], BaseException | None]: ...
