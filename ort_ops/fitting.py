"""Which kernels of an operator can run its nodes: providers, element types, attributes."""

from collections.abc import Container, Iterable, Sequence

from .model import Model, Node
from .registry import Op, Overload

__all__ = ["leaves_out", "runnable"]


def leaves_out(model: Model, name: tuple[str, str]) -> bool:
    """Tell whether a node leaves out an input, or may: in a body that depends on who calls it."""
    nodes = (node for node in model.nodes if node.op == name)
    return any(0 in node.input_types or node.in_function is not None for node in nodes)


def runnable(
    model: Model,
    name: tuple[str, str],
    candidates: Sequence[Op],
    providers: Sequence[str],
    asked: Container[str],
) -> tuple[list[Overload], str]:
    """Return the overloads that some node needs, and why others are not among them.

    None where a node with a body is not covered.
    """
    nodes = [node for node in model.nodes if node.op == name]
    outputs = min((node.outputs for node in nodes), default=None)
    left_out = leaves_out(model, name)
    here = [
        overload
        for op in candidates
        for overload in op.overloads(name, left_out, outputs)
        if overload.provider in providers
    ]
    if not here:
        wanted = sorted({provider for op in candidates for provider in op.kernel.providers})
        return [], f"its kernels run on {', '.join(wanted)}; this session has {', '.join(providers)}"
    if name in model.functions and not any(overload.provider in asked for overload in here):
        behind = sorted({overload.provider for overload in here})
        return [], f"its kernels run on {', '.join(behind)}, which wasn't asked for"
    for node in nodes:
        if name in model.functions and not _covers(here, node):
            many = all(node.outputs > len(op.kernel.schema.outputs) for op in candidates)
            what = f"has the {node.outputs} outputs" if many else "takes the element types"
            return [], f"no kernel {what} of node {node.name!r}"
    unknown = _unknown_attributes(nodes, here)
    lost = [node for node in nodes if unknown and not _covers(here, node, unknown) and _covers(here, node)]
    whys = [unknown[o.op] for o in here if lost and o.accepts(lost[0].input_types, lost[0].outputs)]
    here = [] if lost and name in model.functions else [o for o in here if o.op not in unknown]
    # The first that fits wins, so overloads of any type come last.
    fitting = [o for o in here if any(o.accepts(node.input_types, node.outputs) for node in nodes)]
    return sorted(fitting or here, key=lambda o: o.signature.inputs.count(0)), "".join(whys[:1])


def _covers(overloads: Iterable[Overload], node: Node, but: Container[Op] = ()) -> bool:
    return any(o.accepts(node.input_types, node.outputs) for o in overloads if o.op not in but)


def _unknown_attributes(nodes: Sequence[Node], overloads: Sequence[Overload]) -> dict[Op, str]:
    """Return the kernels that would run a node with an attribute that they can't have, and what to say of it.

    ONNX Runtime would run the node without a word, and the attribute would count for nothing.
    """
    found: dict[Op, str] = {}
    for node in nodes if any(node.attributes for node in nodes) else ():
        for op in {o.op: None for o in overloads if o.accepts(node.input_types, node.outputs)}:
            schema = op.kernel.schema
            known = [attribute.name for attribute in schema.attributes]
            unknown = [name for name in node.attributes if name not in known]
            if node.unreadable:
                found.setdefault(
                    op,
                    f"node {node.name!r} has the attribute {node.unreadable[0]!r} of a kind that ONNX "
                    "Runtime shows no operator; expected numbers, texts, lists of these or a tensor",
                )
            elif unknown and not op.kernel.any_attributes:
                inputs = [formal.name for formal in schema.inputs]
                has = "takes as an input" if unknown[0] in inputs else "doesn't have"
                found.setdefault(
                    op,
                    f"node {node.name!r} has the attribute {unknown[0]!r}, which {op.kernel.where} {has}; "
                    f"expected one of {', '.join(known) or 'none'}",
                )
    return found
