"""Registering one map on several tensors, and assigning to them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.errors import MissingRightInverseError, NotParametrizedError
from paramdesc.parametrizations.composition.joint import (
    LARGEST_COUNT,
    JointPart,
    Transposed,
    split_like,
    stacked,
)
from paramdesc.parametrizations.composition.nested import assign_inner, inner_map
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.snapshot import Snapshot, below, split_tensors
from paramdesc.torch_internals.replacing import replace_data

__all__ = ["assign_jointly", "joint", "tie"]

Place = tuple[Module, str]


def joint(
    parametrization: ParametrizationProto | TensorMap,
    places: Sequence[Place],
    *,
    dim: int | None = 0,
) -> None:
    """Parametrize several tensors jointly, with one map on their concatenation.

    For example, the projections of attention can be orthogonal as one matrix, or a weight and its
    bias can share one norm. Each tensor keeps its Parameter as its original, so existing optimizers
    stay valid. Every part has all originals: they are named `original0`, `original1`, ..., in the
    order of `places`, and a state_dict holds them once for each part, as for any tied Parameter.

    Reading one part evaluates the whole map, and `cached` stores each part separately. Removing the
    map from one part leaves the others as they are. Loading a state_dict with `assign=True` unties
    the parts, as it does for all tied Parameters.

    Args:
        parametrization: a map with one original. Each part gets a copy that shares its parameters.
        places: two to eight pairs of a module and the name of a Parameter that is not parametrized.
        dim: the dimension along which the tensors are concatenated, see `JointPart`; None for one
            vector of all entries.

    Raises:
        ValueError: if a place is not a plain Parameter or is given twice, or the map does not fit.
        Exception: whatever the map raises. In every case the modules are as they were before.

    >>> q, k = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    >>> joint(TorchOrthogonal("cayley"), [(q, "weight"), (k, "weight")])
    >>> bool((q.weight @ k.weight.T).abs().max() < 1e-6)
    True
    """
    parameters = [plain_parameter(*place) for place in places]
    if not 2 <= len(parameters) <= LARGEST_COUNT:
        raise ValueError(
            f"joint takes two to {LARGEST_COUNT} tensors. Got {len(parameters)}. For more, put "
            "them in one Parameter."
        )
    if len(set(parameters)) < len(parameters):
        raise ValueError("joint takes each Parameter only once, but one of them is given twice.")
    whole = inner_map(parametrization)
    snapshot = Snapshot(below([*(module for module, _ in places), whole]), parameters)
    try:
        originals = find_originals(whole, parameters, dim)
        for i, (module, name) in enumerate(places):
            part = JointPart(copied(whole), i, dim)
            part.pending = originals
            register_parametrization(module, name, part)
            part.pending = None
        for parameter, original in zip(parameters, originals, strict=True):
            replace_data(parameter, original.clone())
        for place in places:
            share(chain_at(*place), parameters)
    except BaseException:
        snapshot.restore()
        raise


@torch.no_grad()
def assign_jointly(places: Sequence[Place], values: Sequence[Tensor]) -> None:
    """Assign to all parts of a joint map at once: `module.<name> = value` for each.

    The values are concatenated, and the map's `right_inverse` computes the originals. It also
    determines what happens to values that do not satisfy the constraint.

    Args:
        places: all parts, in the order in which they were registered.
        values: a tensor for each.

    Raises:
        ValueError: if the places are not all parts of one joint map.
        RuntimeError: if a map has no `right_inverse`.
        Exception: whatever the map raises. In every case nothing is assigned then.
    """
    chains = [chain_at(*place) for place in places]
    parts = [part_of(chain, i, len(chains)) for i, chain in enumerate(chains)]
    if len({tuple(map(id, chain.originals())) for chain in chains}) > 1:
        raise ValueError("these are parts of different joint maps, or no longer share originals.")
    shared: tuple[Tensor, ...] = chains[0].originals()
    written = [x for chain in chains for x in split_tensors(chain)[1]]
    snapshot = Snapshot(below(chains), shared, written)
    try:
        wanted = [
            before_later_maps(chain, value) for chain, value in zip(chains, values, strict=True)
        ]
        dim = None if parts[0].whole else parts[0].dim
        for part, chain, value in zip(parts, chains, values, strict=True):
            part.pending = find_originals(part.map, wanted, dim)
            chain.right_inverse(value)
    except BaseException:
        snapshot.restore()
        raise
    finally:
        for part in parts:
            part.pending = None


def tie(
    place: Place,
    to: Place,
    parametrization: ParametrizationProto | TensorMap | None = None,
) -> None:
    """Make one tensor a function of another module's Parameter, by default its transpose.

    For example, the decoder of an autoencoder can use the transposed weight of the encoder. Both
    tensors then train a single Parameter, and assigning to either changes the other.

    Args:
        place: module and name of the tensor that is replaced.
        to: module and name of the Parameter that it is computed from; must not be parametrized.
        parametrization: the map from that Parameter to the tensor; by default `Transposed`.

    Raises:
        ValueError: if `to` is not a plain Parameter, `place` is parametrized, or the shape of the
            map's value is not that of the tensor.

    >>> encoder, decoder = torch.nn.Linear(5, 2), torch.nn.Linear(2, 5)
    >>> tie((decoder, "weight"), to=(encoder, "weight"))
    >>> bool((decoder.weight == encoder.weight.T).all())
    True
    """
    source, target = plain_parameter(*to), plain_parameter(*place)
    parametrization = inner_map(Transposed() if parametrization is None else parametrization)
    with torch.no_grad():
        value = parametrization(source)
    if value.shape != target.shape or value.dtype != target.dtype:
        raise ValueError(
            f"{place[1]!r} is {list(target.shape)}, {target.dtype}, and the map makes "
            f"{list(value.shape)}, {value.dtype} of {to[1]!r}."
        )
    module, name = place
    snapshot = Snapshot(below([module, parametrization]), [target])
    try:
        register_parametrization(module, name, parametrization, unsafe=True)
        chain = chain_at(module, name)
        if not chain.is_tensor:
            raise ValueError("a tie has one original, but the map has several.")
        chain._parameters["original"] = source
        chain.__dict__["is_tied"] = True
    except BaseException:
        snapshot.restore()
        raise


def plain_parameter(module: Module, name: str) -> Parameter:
    """The Parameter at that place."""
    parameter = module._parameters.get(name)
    if parameter is None or is_parametrized(module, name):
        raise ValueError(
            f"{type(module).__name__} has no plain Parameter {name!r}: a joint map or a tie must "
            "be registered on a plain Parameter. Register it before other parametrizations."
        )
    return parameter


def chain_at(module: Module, name: str) -> ParametrizationList:
    """The chain at that place."""
    if not is_parametrized(module, name):
        raise NotParametrizedError(module, name)
    chains: Any = module.parametrizations
    chain: ParametrizationList = chains[name]
    return chain


def part_of(chain: ParametrizationList, index: int, count: int) -> JointPart:
    """The map of `chain`; it must be part `index` of `count`."""
    part = next(chain.maps())
    if not isinstance(part, JointPart) or part.index != index or chain.ntensors != count:
        raise ValueError(
            "assign_jointly takes all parts of one joint map, in the order in which they were "
            f"registered: {chain.tensor_name!r} of {chain.host} is not part {index} of {count}."
        )
    return part


def find_originals(whole: Module, parts: Sequence[Tensor], dim: int | None) -> list[Tensor]:
    """Originals of all parts for which the map gives these parts, as closely as it can."""
    given = [X.detach() for X in parts]
    axis = 0 if dim is None else dim
    try:
        original = assign_inner(whole, stacked(given, axis, dim is None))
    except NotImplementedError:
        return given
    if not isinstance(original, Tensor):
        raise ValueError(
            f"{type(whole).__name__} has several originals for one tensor, but a joint map has "
            "one for each of its parts."
        )
    return split_like(original, given, axis, dim is None)


def copied(whole: Module) -> Module:
    """A copy that shares the trained tensors, and has states of its own."""
    return copy.deepcopy(whole, {id(x): x for x in whole.parameters()})


def share(chain: ParametrizationList, parameters: Sequence[Parameter]) -> None:
    """Let the originals of `chain` be these objects."""
    for name, parameter in zip(chain.original_names(), parameters, strict=True):
        chain._parameters[name] = parameter


def before_later_maps(chain: ParametrizationList, value: Tensor) -> Tensor:
    """The value that the first map of `chain` must give for the chain to give `value`."""
    for parametrization in reversed(list(chain.maps())[1:]):
        right_inverse: Any = getattr(parametrization, "right_inverse", None)
        if right_inverse is None:
            raise MissingRightInverseError(chain.tensor_name, parametrization)
        value = right_inverse(value)
    return value
