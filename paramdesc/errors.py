"""The exceptions that paramdesc raises.

Each class derives from the built-in exception that `torch.nn.utils.parametrize` raises in the same
place, and builds its message from its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from torch import Tensor
from torch.nn import Module

__all__ = [
    "AdapterMergeError",
    "ArgumentError",
    "AssignmentError",
    "AveragedOriginalsError",
    "BakingError",
    "BatchedGraphError",
    "CacheTargetError",
    "ChainError",
    "CheckpointError",
    "ConstraintError",
    "DeferredGradientError",
    "DisabledError",
    "DistributionError",
    "DividedBatchError",
    "InitialisationError",
    "LayoutError",
    "MapError",
    "MapResultError",
    "MissingChainError",
    "MissingRightInverseError",
    "MissingTensorError",
    "MixedEnginesError",
    "ModuleError",
    "NonFiniteError",
    "NotParametrizedError",
    "OptimizerError",
    "OriginalError",
    "PlacementError",
    "RecipeError",
    "ScriptedScopeError",
    "ScriptingError",
    "SelectionError",
    "SeveralOriginalsError",
    "ShardedModuleError",
    "SharedMapError",
    "TiedParameterError",
    "TyingError",
]


def names_of_tensors(module: Module) -> list[str]:
    """The names of the module's own tensors, for messages."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    names += [name for name, _ in module.named_buffers(recurse=False)]
    return names + list(getattr(module, "parametrizations", ()))


def listed(names: Iterable[str]) -> str:
    """The names for a message, `none` if there are none."""
    return ", ".join(map(repr, names)) or "none"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A sentence with the known names that are like `name`; empty if there is none."""
    near = get_close_matches(name, list(known), 3) if isinstance(name, str) else []
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def paths_of_tensors(module: Module) -> list[str]:
    """The paths of all tensors at and below the module, for messages."""
    return [
        f"{path}.{name}" if path else name
        for path, child in module.named_modules()
        if "parametrizations" not in path.split(".")
        for name in names_of_tensors(child)
    ]


def add_note(error: BaseException, note: str) -> None:
    """Attach `note` to `error`, on Python 3.10 too, where nothing prints it."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:  # Python 3.10: the attribute that later versions, pytest and rich read
        error.__dict__.setdefault("__notes__", []).append(note)


class MissingTensorError(ValueError):
    """The module has no parameter, buffer or parametrized tensor of that name."""

    def __init__(self, module: Module, tensor_name: str) -> None:
        self.tensor_name = tensor_name
        super().__init__(
            f"{type(module).__name__} does not have a parameter, a buffer, or a parametrized "
            f"element with name {tensor_name!r}.{hint_for_tensor(module, tensor_name)}"
        )


def hint_for_tensor(module: Module, tensor_name: object) -> str:
    """What the module has instead: tensors of its own, or of its submodules."""
    if isinstance(tensor_name, str) and callable(getattr(module, tensor_name, None)):
        return (
            f" {tensor_name!r} is a method there, as in quantized modules, which pack their "
            "weights. Parametrize the module before quantizing it."
        )
    own = names_of_tensors(module)
    if isinstance(tensor_name, str) and isinstance(module.__dict__.get(tensor_name), Tensor):
        if is_computed_by_hook(module, tensor_name):
            return (
                f" {tensor_name!r} is a plain attribute, which a hook computes from "
                f"{listed(own) or 'other tensors'}, as in the older torch.nn.utils.weight_norm. "
                "Write paramdesc.bake(module) first: it makes a Parameter of it."
            )
        return (
            f" {tensor_name!r} is a plain attribute. Make it a Parameter, module.{tensor_name} = "
            f"torch.nn.Parameter(module.{tensor_name}), or assign it with "
            f'module.register_buffer("{tensor_name}", tensor) in the first place.'
        )
    below = [] if own and "." not in str(tensor_name) else paths_of_tensors(module)
    hint = did_you_mean(tensor_name, [*own, *below])
    if below and not hint:
        more = ", ..." if len(below) > 3 else ""
        hint = f" Tensors of submodules are given by their paths: {listed(below[:3])}{more}."
    if len(below) > 1:
        hint += " paramdesc.parametrize(model, {...}) parametrizes many of them at once."
    return f" Its tensors are: {listed(own)}.{hint}"


def is_computed_by_hook(module: Module, tensor_name: str) -> bool:
    """Whether an older function of torch, or pruning, computes the attribute before each call."""
    hooks = module._forward_pre_hooks.values()
    return any(
        tensor_name in (getattr(hook, "name", None), getattr(hook, "_tensor_name", None))
        for hook in hooks
    )


class NotParametrizedError(ValueError):
    """A parametrization was needed on a tensor that is not parametrized."""

    def __init__(self, module: Module, tensor_name: str) -> None:
        self.tensor_name = tensor_name
        names = list(getattr(module, "parametrizations", ()))
        if "." in tensor_name:
            names = [
                f"{path}.{name}" if path else name
                for path, child in module.named_modules()
                if "parametrizations" not in path.split(".")
                for name in getattr(child, "parametrizations", ())
            ]
        shown = listed(names[:5]) + (", ..." if len(names) > 5 else "")
        super().__init__(
            f"{type(module).__name__} does not have a parametrization on {tensor_name!r}. "
            f"Parametrized tensors: {shown}.{did_you_mean(tensor_name, names)}"
        )


class MissingChainError(NotParametrizedError, KeyError):
    """A chain was asked for by a name under which there is none."""

    def __init__(self, owner: str, name: str, known: Sequence[str]) -> None:
        self.tensor_name = name
        near = get_close_matches(name, known, 3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        listed = ", ".join(map(repr, known[:5])) or "none"
        more = f", and {len(known) - 5} more" if len(known) > 5 else ""
        ValueError.__init__(
            self,
            f"{owner} no parametrization on {name!r}. Parametrized tensors: {listed}{more}.{hint}",
        )

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError shows the repr of its message


class SeveralOriginalsError(ValueError):
    """A single original was needed, and the weight is a function of several."""

    def __init__(self, tensor_name: str, count: int) -> None:
        super().__init__(
            f"{tensor_name!r} is computed from {count} originals, so leave_parametrized=False "
            "has no single tensor to restore. Write remove_parametrizations(module, "
            f'"{tensor_name}", leave_parametrized=True).'
        )


class MapError(TypeError):
    """An object that is not a map was given as one."""

    def __init__(self, parametrization: object) -> None:
        is_complete = is_built(parametrization)
        shown = repr(parametrization) if is_complete else type(parametrization).__name__
        super().__init__(f"Not a parametrization: {shown:.200}. {hint_for_map(parametrization)}")


def is_built(thing: object) -> bool:
    """Whether it is not a module, or one whose constructor has called that of `nn.Module`."""
    return not isinstance(thing, Module) or "_modules" in vars(thing)


def hint_for_map(thing: object) -> str:
    """What to pass instead of something that is not a map."""
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    if isinstance(thing, type):
        return f"It is a class: pass an instance, {name}(...)."
    if not is_built(thing):
        return (
            f"{name}.__init__ does not call the __init__ of its base class: write "
            "super().__init__() in its first line."
        )
    if isinstance(thing, Module):
        near = get_close_matches("forward", [x for x in vars(type(thing)) if x != "forward"], 1)
        typo = f" {name}.{near[0]} is a method: did you mean forward?" if near else ""
        return f"It is a Module without a forward method: define forward(self, X).{typo}"
    if isinstance(thing, (list, tuple)):
        return (
            "To apply several maps in turn, pass paramdesc.parametrizations.Compose(first, second) "
            "or register them one after the other."
        )
    hint = "Pass an nn.Module with a forward method, or a function Tensor -> Tensor."
    if isinstance(thing, str):
        hint += " The arguments are (module, tensor_name, parametrization), in this order."
    return hint


ONE_LINE = ("orthogonal", "spectral_norm", "weight_norm")
"""Functions that take the arguments of a map after the name."""


class ModuleError(TypeError):
    """Something that is not a module, or not the name of a tensor, was given as one."""

    @classmethod
    def of_type(cls, function: str, module: object) -> ModuleError:
        what = "a tensor" if isinstance(module, Tensor) else f"a {type(module).__name__}"
        return cls(
            f"{function}() takes a module and the name of a tensor in it, but got {what}. Write "
            f'{function}(module, "weight", ...).'
        )

    @classmethod
    def of_model(cls, function: str, model: object) -> ModuleError:
        hint = f"Write {function}(model, ...)."
        if isinstance(model, type):
            hint = f"It is a class: pass an instance, {function}({model.__name__}(...), ...)."
        elif isinstance(model, (list, tuple)):
            hint = f"Write {function}(nn.ModuleList(modules), ...): paths begin with an index."
        what = "a tensor" if isinstance(model, Tensor) else f"{model!r:.200}"
        kind = "" if isinstance(model, Tensor) else f" of type {type(model).__name__}"
        return cls(f"{function}() takes one module, the model. Got {what}{kind}. {hint}")

    @classmethod
    def one_by_one(cls, function: str, module: object) -> ModuleError:
        hint = f"Write {function}(model)."
        if isinstance(module, Iterable) and not isinstance(module, (str, bytes, Tensor)):
            hint = f"Write {function}(*modules)."
        return cls(
            f"{function}() takes modules, one by one. Got {module!r:.200} of type "
            f"{type(module).__name__}. {hint}"
        )

    @classmethod
    def of_name(cls, function: str, name: object) -> ModuleError:
        if isinstance(name, Module):
            hint = "The arguments are (module, tensor_name, parametrization), in this order."
        elif isinstance(name, (list, tuple, set)):
            hint = (
                "Call it once for each name, or write paramdesc.parametrize(model, {...}) for "
                "several tensors at once."
            )
        else:
            hint = 'It is a string, such as "weight" or "encoder.0.weight".'
            if function in ONE_LINE:
                hint += f' Other arguments come after it: {function}(module, "weight", ...).'
        return cls(f"{function}() takes the name of one tensor. Got {name!r:.200}. {hint}")


class ArgumentError(TypeError):
    """An argument has a type that the function does not take."""

    @classmethod
    def of_maps(cls, maps: object) -> ArgumentError:
        name = str(getattr(maps, "__name__", ""))
        value = name if name.isidentifier() else "..."
        if isinstance(maps, Module):
            value = f"lambda: {type(maps).__name__}(...)"
        return cls(
            "parametrize() takes a dict from selectors to parametrizations. Got "
            f"{maps!r:.200} of type {type(maps).__name__}. Write parametrize(model, "
            f"{{nn.Linear: {value}}}) for the weights of all modules of a type."
        )

    @classmethod
    def of_values(cls, values: object) -> ArgumentError:
        return cls(
            "values= takes a dict from patterns to tensors. Got an object of type "
            f'{type(values).__name__}. Write disabled(model, values={{"0.weight": tensor}}).'
        )

    @classmethod
    def of_map_types(cls, argument: str, given: object) -> ArgumentError:
        names = [name_of_type(x) for x in (given if isinstance(given, (list, tuple)) else [given])]
        types = names[0] if len(names) == 1 else f"({', '.join(names)})"
        return cls(
            f"{argument}= takes a type of parametrizations, or a tuple of types. Got "
            f"{given!r:.200} of type {type(given).__name__}. Write {argument}={types}."
        )

    @classmethod
    def of_index(
        cls, tensor_name: str, index: object, maps: Sequence[str], found: int
    ) -> ArgumentError:
        shown = index.__name__ if isinstance(index, type) else repr(index)
        return cls(
            f"the parametrizations of {tensor_name!r} are indexed by integers and slices. Got "
            f"{shown:.200}. There are: {listed(maps)}. Write "
            f"module.parametrizations.{tensor_name}[{found}]. Only replace() and remove() also "
            "take a type, or the name of a class."
        )


def name_of_type(given: object) -> str:
    """The name of the type of maps that was probably meant."""
    if isinstance(given, str) and given.isidentifier():
        return given
    named = given if isinstance(given, type) else type(given)
    return named.__name__ if issubclass(named, Module) else "Symmetric"


class MapResultError(ValueError):
    """A map returned something that cannot replace the tensor it is registered on."""

    @classmethod
    def type_of(cls, what: str, result: object) -> MapResultError:
        return cls(f"{what} must return a tensor. Got {type(result).__name__}.")

    @classmethod
    def changed(
        cls, aspect: str, tensor_name: str, before: object, after: object
    ) -> MapResultError:
        return cls(
            f"Registering a parametrization may not change the {aspect} of the tensor, "
            f"unless the `unsafe` flag is enabled.\nmodule.{tensor_name}.{aspect}: {before}\n"
            f"parametrization(module.{tensor_name}).{aspect}: {after}"
        )

    @classmethod
    def inverse_changed(
        cls, aspect: str, tensor_name: str, before: object, after: object
    ) -> MapResultError:
        return cls(
            f"The tensor returned by parametrization.right_inverse must have the same {aspect} "
            f"as module.{tensor_name}, unless the `unsafe` flag is enabled.\n"
            f"module.{tensor_name}.{aspect}: {before}\nreturned {aspect}: {after}"
        )


class OriginalError(ValueError):
    """What was assigned, or `right_inverse` made of it, cannot be the original."""

    @classmethod
    def shaped(
        cls, tensor_name: str, host: str, before: Iterable[int], given: Iterable[int]
    ) -> OriginalError:
        return cls(
            f"cannot assign a tensor of shape {list(given)} to {tensor_name!r} of {host}, which "
            f"has shape {list(before)}. To change the shape, write "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}"), assign a new Parameter, '
            "and register again."
        )


class NonFiniteError(ValueError):
    """A map or its `right_inverse` gave NaN for finite numbers."""

    def __init__(self, what: str, tensor_name: str, count: int, total: int, hint: str) -> None:
        self.count = count
        super().__init__(
            f"{what} returns NaN in {count} of {total} entries for a finite {tensor_name!r}. {hint}"
        )


class SharedMapError(ValueError):
    """A map whose state belongs to one tensor was registered on another."""

    def __init__(
        self, parametrization: Module, tensor_name: str, owner: str, names: Sequence[str]
    ) -> None:
        name = type(parametrization).__name__
        listed = ", ".join(map(repr, names))
        super().__init__(
            f"this {name} already parametrizes {owner}, and its state ({listed}) belongs to that "
            f"tensor: registering it on another tensor, {tensor_name!r}, would change the value "
            f"of the first. Register another instance, {name}(...) or "
            "copy.deepcopy(parametrization)."
        )


class TiedParameterError(ValueError):
    """Registration would overwrite a tensor that another module holds, too."""

    def __init__(self, module: Module, tensor_name: str, holder: str) -> None:
        super().__init__(
            f"{tensor_name!r} of {type(module).__name__} is the same tensor as {holder}, and the "
            "right_inverse of the parametrization would overwrite both. Untie it first: "
            f"module.{tensor_name} = torch.nn.Parameter(module.{tensor_name}.detach().clone()). "
            "To parametrize both modules and keep them tied, register on the untied one and "
            "then call paramdesc.transfer_parametrizations_and_params(module, other)."
        )


class ShardedModuleError(RuntimeError):
    """A parametrization was to be added to or removed from a module that FSDP manages."""

    def __init__(
        self,
        module: Module,
        tensor_name: str,
        doing: str,
        cause: str = "and restores the parameters it has sharded, which would bypass the change",
    ) -> None:
        super().__init__(
            f"cannot {doing} {tensor_name!r} of {type(module).__name__}: FSDP manages the module "
            f"{cause}. Register and remove parametrizations first, then call fully_shard(module) "
            "or FullyShardedDataParallel(module)."
        )


class ChainError(ValueError):
    """An edit of the maps of a chain cannot work, or would change the form of its tensors."""

    @classmethod
    def emptied(cls, tensor_name: str, host: str) -> ChainError:
        return cls(
            f"cannot remove the last parametrization of {tensor_name!r} of {host}: nothing would "
            "be left to evaluate. Write paramdesc.remove_parametrizations(module, "
            f'"{tensor_name}").'
        )

    @classmethod
    def changed(cls, aspect: str, tensor_name: str, before: object, after: object) -> ChainError:
        return cls(
            f"these parametrizations would change the {aspect} of {tensor_name!r} from {before} "
            f"to {after}. If this is intended, remove them and register again with unsafe=True: "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}").'
        )

    @classmethod
    def which(cls, which: str, count: int, tensor_name: str, maps: Sequence[str]) -> ChainError:
        fact = f"{count} parametrizations" if count else "no parametrization"
        return cls(
            f"{which} matches {fact} of {tensor_name!r}, and must match exactly one. There are: "
            f"{listed(maps)}. Write the index, for example "
            f"module.parametrizations.{tensor_name}.remove(0)."
        )

    @classmethod
    def originals(cls, tensor_name: str, fact: str) -> ChainError:
        return cls(
            f"these parametrizations need different originals for {tensor_name!r}: {fact}. To "
            "register on new originals, write paramdesc.remove_parametrizations(module, "
            f'"{tensor_name}"), then paramdesc.register_parametrization(module, "{tensor_name}", '
            "...)."
        )

    @classmethod
    def held(cls, tensor_name: str, holder: str) -> ChainError:
        return cls(
            f"cannot keep the value of {tensor_name!r}: its original would be overwritten, and a "
            f"{holder} uses the same Parameter. Write keep_value=False to keep the original "
            "instead, or give this tensor its own original: "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}"), then register again.'
        )

    @classmethod
    def deleted(cls, tensor_name: str) -> ChainError:
        return cls(
            f"cannot delete the parametrizations of {tensor_name!r} from module.parametrizations: "
            "the module would have no tensor of that name. Write "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}").'
        )


def kind_of(parametrization: Module) -> str:
    """The class of a map, or the name of the plain function that it applies."""
    function = getattr(parametrization, "function", None)
    return getattr(function, "__name__", type(parametrization).__name__)


class MissingRightInverseError(RuntimeError):
    """Assignment needs a `right_inverse` that a map of the chain lacks."""

    def __init__(
        self, tensor_name: str, parametrization: Module | None, is_edit: bool = False
    ) -> None:
        self.parametrization = parametrization
        name = "of the new chain" if parametrization is None else kind_of(parametrization)
        if is_edit:
            super().__init__(
                f"cannot keep the value of {tensor_name!r}: parametrization {name} does not "
                "implement right_inverse, which is needed to assign the value. Add the argument "
                "keep_value=False to keep the original instead."
            )
            return
        near = get_close_matches("right_inverse", dir(type(parametrization)), 1)
        typo = f" {name}.{near[0]} is a method: did you mean right_inverse?" if near else ""
        advice = f"Define {name}.right_inverse(self, X)"
        if hasattr(parametrization, "function"):
            advice = "Register it with register_parametrization(..., right_inverse=function)"
        super().__init__(
            f"cannot assign to {tensor_name!r}: parametrization {name} does not implement "
            f"right_inverse. {advice}, or write to "
            f"module.parametrizations.{tensor_name}.original.{typo}"
        )


class AssignmentError(TypeError):
    """A parametrized name was deleted, or given a Parameter, a Module or None."""

    @classmethod
    def replaced(cls, tensor_name: str) -> AssignmentError:
        return cls(
            f"cannot assign an nn.Parameter or nn.Module to {tensor_name!r}: it is parametrized, "
            f"and an assigned value must go through right_inverse. Write `module.{tensor_name} = "
            "value.detach()` to set its value, or call "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}") first.'
        )

    @classmethod
    def emptied(cls, tensor_name: str) -> AssignmentError:
        return cls(
            f"cannot assign None to {tensor_name!r}: it is parametrized. Call "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}") first.'
        )

    @classmethod
    def deleted(cls, tensor_name: str) -> AssignmentError:
        return cls(
            f"cannot delete {tensor_name!r}: it is parametrized. Call "
            f'paramdesc.remove_parametrizations(module, "{tensor_name}"), then `del`.'
        )


class DisabledError(RuntimeError):
    """A parametrization was to be switched off, or used while it is, in a way that cannot work."""

    @classmethod
    def several(cls, path: str, count: int) -> DisabledError:
        return cls(
            f"{path!r} is computed from {count} originals, so there is no single tensor to read "
            f"while it is disabled. Pass one, disabled(model, values={{{path!r}: tensor}}), or "
            f"leave it out, disabled(model, exclude=[{path!r}])."
        )

    @classmethod
    def foreign(cls, path: str) -> DisabledError:
        return cls(
            f"{path!r} is parametrized by torch.nn.utils.parametrize, which cannot be disabled. "
            "Call paramdesc.adopt(model) first, or leave it out, disabled(model, "
            f"exclude=[{path!r}])."
        )

    @classmethod
    def without_map(cls, maps: Sequence[type], present: Sequence[str]) -> DisabledError:
        names = " or ".join(x.__name__ for x in maps)
        listed = ", ".join(present) or "none"
        return cls(
            f"no selected tensor has a parametrization of type {names}. There are: {listed}. "
            "Write disabled(model, maps=<one of these types>), or disabled(model) for all maps."
        )

    @classmethod
    def shape(cls, path: str, given: object, expected: object) -> DisabledError:
        return cls(
            f"the value given for {path!r} has shape {given}, but the tensor has shape {expected}. "
            f"Write disabled(model, values={{{path!r}: tensor}}) with a tensor of that shape."
        )

    @classmethod
    def given(cls, path: str, value: object) -> DisabledError:
        return cls(
            f"the value given for {path!r} must be a tensor. Got {type(value).__name__}. Write "
            f"disabled(model, values={{{path!r}: tensor}})."
        )

    @classmethod
    def assigned(cls, tensor_name: str, how: str) -> DisabledError:
        other = (
            f"write to module.parametrizations.{tensor_name}.original inside torch.no_grad()"
            if how == "original"
            else "open another block with values={...}"
        )
        return cls(
            f"cannot assign to {tensor_name!r} inside disabled(...): the value would go through "
            "right_inverse, and reading the tensor would not return it. Assign outside the "
            f"block, or {other}."
        )

    @classmethod
    def scripted(cls) -> DisabledError:
        return cls(
            "torch.jit.script was called inside disabled(...), which TorchScript programs do "
            "not support. Call it outside the block, or script a copy without the "
            "parametrizations: paramdesc.remove_parametrizations(module, name, "
            "leave_parametrized=False)."
        )

    @classmethod
    def program(cls, name: str) -> DisabledError:
        return cls(
            f"{name or 'the model'} is a TorchScript program, whose parametrizations cannot be "
            "disabled. Write disabled(model) for the eager model."
        )

    @classmethod
    def generator(cls, name: str) -> DisabledError:
        return cls(
            f"cannot decorate the generator {name}: between its steps, the block would also "
            "apply to its caller. Write `with disabled(...):` inside it."
        )


class DistributionError(RuntimeError):
    """A parametrized module was distributed before paramdesc could learn of it."""

    def __init__(self) -> None:
        super().__init__(
            "this parametrized module is distributed with torch.distributed.tensor, which was "
            "imported after the module was parametrized. Write `import "
            "torch.distributed.tensor.parallel` before register_parametrization(...), or call "
            "parallelize_module(...) before it."
        )


class InitialisationError(RuntimeError):
    """A function of `torch.nn.init` got a detached part of a parametrized tensor."""

    def __init__(self, tensor_name: str) -> None:
        self.tensor_name = tensor_name
        super().__init__(
            f"this tensor is a detached part of the value of {tensor_name!r}, so its position in "
            f"the value is unknown. Write nn.init.zeros_(module.{tensor_name}[0]) or "
            f"nn.init.zeros_(module.{tensor_name}.data[0]), or assign the whole value: "
            f"module.{tensor_name} = value."
        )


class MixedEnginesError(RuntimeError):
    """torch's engine was about to write to a class that paramdesc left unchanged."""

    def __init__(self, function: str) -> None:
        super().__init__(
            f"torch.nn.utils.parametrize.{function} was called on a module that paramdesc "
            "parametrizes. It would change the class, and with it every module of that class; "
            f"nothing was changed. Write paramdesc.{function}(...) instead."
        )


class AveragedOriginalsError(RuntimeError):
    """An average would be taken over originals whose base points move."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the original of {path!r} is relative to a base point that moves during training, "
            "so an average over several steps is meaningless. Average the values of the weight "
            "and assign the result, or construct the map with rebase=None before training."
        )


class CacheTargetError(TypeError):
    """`cached` or `auto_cache` was given something that cannot hold parametrizations."""

    @classmethod
    def scoped(cls, target: object) -> CacheTargetError:
        hint = ""
        if callable(target) and not isinstance(target, Tensor):
            hint = " To decorate a function, write @cached(), with parentheses."
        elif isinstance(target, str):
            hint = f" For tensors by name, write cached(get_parametrizations(model)[{target!r}])."
        elif isinstance(target, Tensor):
            return cls(
                "cached() takes modules, ParametrizationLists, and sets or iterables of them. Got "
                f"a tensor of shape {list(target.shape)}. Write cached(module)."
            )
        return cls(
            "cached() takes modules, ParametrizationLists, and sets or iterables of them. "
            f"Got {target!r:.200} of type {type(target).__name__}.{hint}"
        )

    @classmethod
    def persistent(cls) -> CacheTargetError:
        return cls(
            "cached(persistent=True) needs targets: without them, it would keep values of every "
            "parametrization that is ever read. Write cached(model, persistent=True)."
        )

    @classmethod
    def batched(cls) -> CacheTargetError:
        return cls(
            "cached(batched=True) needs targets: the first read of a tensor evaluates all "
            "similar covered tensors, which are unknown without targets. Write cached(model, "
            "batched=True)."
        )

    @classmethod
    def automatic(cls, target: object, is_scripted: bool) -> CacheTargetError:
        hint = (
            "A TorchScript program caches values only in blocks: write `with cached(program):` "
            "around its calls."
            if is_scripted
            else "Pass the model."
        )
        return cls(f"auto_cache() takes an eager module. Got {type(target).__name__}. {hint}")


class ConstraintError(ValueError):
    """A strict map was given a value that violates its constraint."""

    def __init__(
        self, parametrization: Module, constraint: str, deviation: float, tolerance: float
    ) -> None:
        self.deviation = deviation
        self.tolerance = tolerance
        name = type(parametrization).__name__
        super().__init__(
            f"the value is not {constraint}: it deviates by {deviation:.3g}, and only "
            f"{tolerance:.3g} is allowed for rounding. Assign a value that satisfies the "
            f"constraint, or register {name}(...) without strict=True to replace it with a "
            "nearby one."
        )


class ScriptingError(RuntimeError):
    """TorchScript cannot compile a map."""

    def __init__(
        self, name: str, index: int | None, refused: Module, refusal: BaseException
    ) -> None:
        self.name = name
        what = "the chain" if index is None else f"map {index}, {type(refused).__name__},"
        super().__init__(
            f"TorchScript cannot compile {what} of {name!r}:\n{str(refusal).strip()}\nRewrite "
            "that line in the subset of Python that TorchScript supports, or use "
            "torch.jit.trace, torch.compile or torch.export, which work with every map."
        )


class ScriptedScopeError(ValueError):
    """`cached(...)` in a scripted method covers tensors that TorchScript cannot reach there."""

    @classmethod
    def unknown(cls, module: Module, call: str, error: NameError) -> ScriptedScopeError:
        return cls(
            f"{call} in a method of {type(module).__name__} cannot be scripted: {error}. Its "
            "arguments are evaluated when the model is scripted, and may use only self and "
            "global names. Write cached(self), or cached(self.<name of a module>)."
        )

    @classmethod
    def outside(cls, module: Module, call: str, names: list[str]) -> ScriptedScopeError:
        return cls(
            f"{call} in a method of {type(module).__name__} cannot be scripted: it covers "
            f"{', '.join(map(repr, names))}, which TorchScript cannot reach from self. Write the "
            "block in a module that contains it, or around the call of the scripted program."
        )


class BatchedGraphError(RuntimeError):
    """A backward pass has reached a graph that another one has freed."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"{len(names)} tensors were evaluated together ({shown(names)}), so they share one "
            "graph, which an earlier backward pass has freed. Read them again after that backward "
            "pass, call backward() once for the sum of the losses or with retain_graph=True, or "
            "write cached(...) without batched=True."
        )


class DividedBatchError(RuntimeError):
    """Processes cannot divide the evaluation of a batch between them."""

    @classmethod
    def apart(
        cls, point: str, names: Sequence[str], others: Mapping[int, str]
    ) -> DividedBatchError:
        here = {
            "READ": f"is about to evaluate {shown(names)}",
            "BACKWARD": f"is in the backward pass of {shown(names)}",
            "END": f"is at the end of the block, after it has evaluated {shown(names)}",
        }
        there = {
            "READ": "about to evaluate tensors",
            "BACKWARD": "in a backward pass",
            "END": "at the end of the block",
        }
        ranks = [f"process {rank} of the group is {there[x]}" for rank, x in others.items()]
        return cls.unequal(
            f"processes that divide a batch must do the same: this one {here[point]}, but "
            f"{' and '.join(ranks[:3])}",
            "all of them must read the same tensors and run the same backward passes, and the loss "
            "of each must reach at least one tensor of a batch",
        )

    @classmethod
    def unequal(cls, fact: str, rule: str) -> DividedBatchError:
        """The processes do not do the same."""
        return cls(
            f"{fact}. With cached(..., process_group=group), {rule}. Otherwise write cached(...) "
            "without process_group=."
        )

    @classmethod
    def disordered(cls, names: Sequence[str]) -> DividedBatchError:
        return cls.unequal(
            "the processes of the group are in the backward passes of different batches; here "
            f"{shown(names)}",
            "all of them must use the tensors in the same order",
        )

    @classmethod
    def lost(cls, names: Sequence[str], error: BaseException) -> DividedBatchError:
        reason = str(error).strip().split("\n")[0]
        return cls(
            f"could not exchange {shown(names)} with the other processes of the group: one of them "
            f"has ended, or has not come to the same point in time ({reason}). With cached(..., "
            "process_group=group), all of them must read the same tensors and run the same "
            "backward passes. Otherwise write cached(...) without process_group=. How long they "
            "wait is set by torch.distributed.new_group(timeout=datetime.timedelta(...))."
        )

    @classmethod
    def different(cls, names: Sequence[str]) -> DividedBatchError:
        return cls.unequal(
            f"the processes of the group are about to evaluate different tensors; here "
            f"{shown(names)}",
            "all of them must have the same model and read its tensors in the same order",
        )

    @classmethod
    def in_forms(cls, names: Sequence[str], form: str) -> DividedBatchError:
        return cls.unequal(
            f"the processes of the group are about to evaluate {shown(names)} in different forms; "
            f"here {form}",
            "the tensors must have the same dtype, shape and requires_grad in all of them, and all "
            "must be in the same grad mode",
        )

    @classmethod
    def has_state(cls, names: Sequence[str]) -> DividedBatchError:
        return cls(
            f"the maps of {shown(names)} have a state that moves in each evaluation, so each "
            "process must evaluate all of them. Write cached(...) without process_group=."
        )


def shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


class LayoutError(ValueError):
    """The value of a stored tensor cannot be computed from the checkpoint alone."""

    def __init__(self, path: str, keys: Sequence[str]) -> None:
        self.path = path
        shown = ", ".join(map(repr, keys[:3])) + (", ..." if len(keys) > 3 else "")
        super().__init__(
            f"the value of {path!r} is a function of {shown}, and a checkpoint does not store "
            "which function. Load it into the parametrized model, then write "
            "paramdesc.plain_state_dict(model.eval())."
        )


class CheckpointError(RuntimeError):
    """A checkpoint does not fit the parametrized tensors of a model."""

    @classmethod
    def refused(
        cls, key: str, originals: Sequence[str], maps: Sequence[str], error: BaseException
    ) -> CheckpointError:
        advice = (
            "To let the parametrizations replace the value with a nearby one, load the checkpoint "
            "before registering them. "
        )
        if isinstance(error, ConstraintError):  # which says what to write
            advice = ""
        return cls(
            f'"{key}" of the checkpoint cannot be the value of a tensor that is parametrized by '
            f"{', '.join(maps)}: {error} {advice}To load originals, store them as "
            f"{', '.join(map(repr, originals))}."
        )

    @classmethod
    def adapters(cls, problems: Sequence[str]) -> CheckpointError:
        return cls(
            f"the adapters do not fit the model: {'; '.join(problems)}. Call lora(module, name, "
            "rank, alpha) with the arguments of the saved model, or write load_adapters(..., "
            "strict=False) to load the keys that are in both."
        )

    @classmethod
    def no_adapters(cls) -> CheckpointError:
        return cls(
            "the state_dict has no adapters: no key ends in .lora_A. Pass the result of "
            "adapter_state_dict(model) from before merge_lora(model)."
        )

    @classmethod
    def unmerged(cls, path: str, problem: str) -> CheckpointError:
        return cls(
            f"the adapter of {path!r} cannot be unmerged: {path!r} {problem}. Pass the result of "
            "adapter_state_dict(model) from before merge_lora(model)."
        )

    @classmethod
    def shape(cls, key: str, given: object, expected: object) -> CheckpointError:
        return cls(
            f"size mismatch for {key}: copying a param with shape {given} from checkpoint, the "
            f"shape in current model is {expected}."
        )


class SelectionError(ValueError):
    """What was given to choose tensors of a model chooses none, or is of the wrong type."""

    @classmethod
    def unmatched(cls, selector: str, argument: str, kind: str, hint: str) -> SelectionError:
        where = f" in {argument}=" if argument else ""
        return cls(f"{selector:.200}{where} matches no {kind} of the model.{hint}")

    @classmethod
    def of_type(cls, selector: object) -> SelectionError:
        return cls(
            "tensors are selected by a pattern ('encoder.*.weight'), a type of module "
            "(nn.Linear), a submodule, or a tuple of these. Got "
            f"{selector!r:.200} of type {type(selector).__name__}."
        )


def hint_for_pattern(pattern: str, is_module: bool, class_name: str, known: Sequence[str]) -> str:
    """What to write instead of a pattern that matches no tensor.

    Args:
        is_module: whether it matches the path of a module.
        class_name: the class of that name, if there is one.
        known: the names and patterns that match.
    """
    if is_module:
        return (
            f" {pattern!r} is the path of a module. Write {pattern + '.*'!r} for the tensors at "
            "and below it."
        )
    if class_name:
        return f" To select modules by their class, write the class itself: {class_name}."
    return (
        f"{did_you_mean(pattern, known)} A pattern is compared with the path of a tensor, such as "
        "'encoder.0.weight', and with its name, such as 'weight'."
    )


def hint_for_type(name: str, own: Sequence[str], types: Sequence[str], kind: str) -> str:
    """What to write instead of a type of modules that selects no tensor.

    Args:
        own: the names of the tensors of modules of this type.
        types: the names of the types of modules with weights.
    """
    if own:
        return (
            f" A type selects the weights of its modules, and the {kind}s of {name} are "
            f"{listed(own)}. Select them by name: {own[0]!r}."
        )
    there = ", ".join(types[:10]) + (", ..." if len(types) > 10 else "")
    return f" The modules with {kind}s are of type {there}." if types else ""


def hint_for_submodule(paths: Sequence[str]) -> str:
    """What to write instead of a module that is not a part of the model, or has no tensor."""
    example = paths[0] if paths else "encoder"
    return (
        " A module selects the tensors at and below it if it is a part of this model, and not of a "
        f"copy. Write model.get_submodule({example!r}), or the pattern {example + '.*'!r}."
    )


class TyingError(ValueError):
    """Tensors of a model cannot be tied."""

    @classmethod
    def parametrized(cls, module: Module, tensor_name: str, path: str) -> TyingError:
        return cls(
            f"cannot tie {tensor_name!r} of {type(module).__name__} to {path!r}: it is "
            "parametrized itself. Call paramdesc.remove_parametrizations(module, "
            f'"{tensor_name}") first, or pass its path as the first one, which is kept.'
        )

    @classmethod
    def differs(
        cls, module: Module, tensor_name: str, path: str, aspect: str, own: object, other: object
    ) -> TyingError:
        return cls(
            f"cannot tie {tensor_name!r} of {type(module).__name__} to {path!r}: its {aspect} is "
            f"{own}, and that of {path!r} is {other}. To make a tensor a function of another "
            "one, use paramdesc.parametrizations.tie."
        )

    @classmethod
    def buffer(cls, module: Module, tensor_name: str, path: str) -> TyingError:
        return cls(
            f"cannot tie {tensor_name!r} of {type(module).__name__} to {path!r}: one of them is "
            "a buffer. Only Parameters and parametrized tensors can be tied."
        )


class PlacementError(ValueError):
    """`parametrize` was told something that it cannot do on this model."""

    @classmethod
    def not_callable(cls, selector: object, value: object) -> PlacementError:
        return cls(
            f"the value for {selector!r:.100} must create a map for each tensor. Got "
            f"{value!r:.200} of type {type(value).__name__}. Write a class, a function without "
            "arguments, such as `lambda: SpectralNorm(0.9)`, or a function (module, "
            "tensor_name), such as `orthogonal`."
        )

    @classmethod
    def signature(cls, selector: object, value: object, signature: object) -> PlacementError:
        name = getattr(value, "__name__", "the function")
        advice = (
            f"Write `lambda: {name}(...)` with its arguments, or `lambda: {name}` if it is the map "
            "itself, a function from tensor to tensor."
        )
        if name == "<lambda>":
            advice = "If it is the map itself, a function from tensor to tensor, give it a name: "
            advice += "`def double(X): return 2 * X`, and write `lambda: double`."
        return cls(
            f"the value for {selector!r:.100} is {name}{signature}, which can be called neither "
            f"without arguments nor with (module, tensor_name). {advice}"
        )

    @classmethod
    def one_map(cls, selector: object, value: Module, paths: Sequence[str]) -> PlacementError:
        name = type(value).__name__
        return cls(
            f"{selector!r:.100} selects {len(paths)} tensors "
            f"({listed(paths[:3])}{', ...' if len(paths) > 3 else ''}), but its value is a "
            f"single map of type {name}. Each tensor needs its own: write `lambda: {name}(...)`."
        )

    @classmethod
    def parametrized(cls, path: str) -> PlacementError:
        return cls(
            f"{path!r} is already parametrized. Write parametrize(..., append=True) to add the "
            "map after the existing ones, or call paramdesc.remove_parametrizations(model, "
            f'"{path}") first.'
        )

    @classmethod
    def unused(cls, selector: object, path: str) -> PlacementError:
        return cls(
            f"every tensor that {selector!r:.100} selects, for example {path!r}, is selected by "
            "an earlier key. Put the specific keys before the general ones."
        )

    @classmethod
    def no_map(cls, selector: object, path: str) -> PlacementError:
        return cls(f"the function for {selector!r:.100} did not register a map on {path!r}.")

    @classmethod
    def tied_lazy(cls, path: str, other: str) -> PlacementError:
        return cls(
            f"{path!r} is the same tensor as {other!r} and has no shape yet. Call the model "
            "once, then parametrize it."
        )

    @classmethod
    def excluded(cls, path: str, other: str) -> PlacementError:
        return cls(
            f"{path!r} is the same tensor as {other!r}, which is excluded. Untie them first: "
            "module.weight = torch.nn.Parameter(module.weight.detach().clone())."
        )

    @classmethod
    def hooked(cls, path: str, tensor_name: str, machinery: str) -> PlacementError:
        return cls(
            f"{path!r} is a part from which {machinery} computes {tensor_name!r} in a hook. Write "
            "paramdesc.bake(model) first, which removes the hook, or name the part by its path."
        )

    @classmethod
    def original(cls, path: str, other: str) -> PlacementError:
        return cls(
            f"{path!r} is the original of {other!r}, which is parametrized. To make both read "
            f'the value, write paramdesc.tie_weights(model, "{other}", "{path}").'
        )


class OptimizerError(TypeError):
    """An `optimizer=` that cannot be kept up to date."""

    @classmethod
    def of_type(cls, optimizer: object) -> OptimizerError:
        return cls(
            "optimizer= takes a torch optimizer, to whose groups the new Parameters are added. "
            f"Got {optimizer!r:.200} of type {type(optimizer).__name__}."
        )

    @classmethod
    def lazy(cls) -> OptimizerError:
        return cls(
            "optimizer= needs a tensor with a shape, but this one has none before the first "
            "call of its module. Call the module once, then register, or create the optimizer "
            "afterwards."
        )


class BakingError(RuntimeError):
    """A parametrized tensor cannot be replaced by its value."""

    @classmethod
    def of_program(cls, path: str, machinery: str) -> BakingError:
        return cls(
            f"cannot bake {path!r}: it is inside a {machinery} program, whose code computes it. "
            "Bake the model from which the program was created, paramdesc.bake(model), then "
            "create the program again."
        )

    @classmethod
    def changed(cls, path: str) -> BakingError:
        return cls(
            f"cannot bake {path!r}: reading the plain tensor does not return the evaluated "
            "value. Does the module define __getattr__, or a property of that name?"
        )


class DeferredGradientError(RuntimeError):
    """A scope with deferred gradients was used such that gradients would be wrong or lost."""

    @classmethod
    def late(cls, name: str) -> DeferredGradientError:
        return cls(
            f"a gradient has reached {name!r} after the backward pass of its maps ran, at the "
            "end of cached(..., deferred=True) or in scope.backward(), and would be lost. Call "
            "loss.backward() earlier, inside the block."
        )

    @classmethod
    def with_graph(cls, name: str) -> DeferredGradientError:
        return cls(
            f"backward(create_graph=True) has reached {name!r} in cached(..., deferred=True). "
            "There the graph ends at the value, so derivatives of these gradients would lack "
            "the part that goes through the maps. Write cached(...) without deferred=True "
            "around this backward pass, or torch.autograd.grad(outputs, inputs, "
            "create_graph=True), which differentiates only with respect to the inputs."
        )

    @classmethod
    def early(cls, what: str, names: list[str]) -> DeferredGradientError:
        return cls(
            f"{what} while gradients wait in cached(..., deferred=True), of "
            f"{', '.join(map(repr, names))}: they have not reached the originals yet. Leave the "
            "block, or call scope.backward(), before anything that reads or clears .grad: "
            "zero_grad(), clipping, scaler.unscale_(optimizer), optimizer.step()."
        )

    @classmethod
    def unused(cls, name: str) -> DeferredGradientError:
        return cls(
            f"{name!r} was read with deferred gradients inside DistributedDataParallel with "
            "find_unused_parameters=True or static_graph=True, which considers its originals "
            "unused and would not average their gradients. Write DistributedDataParallel(model) "
            "without them, or cached(...) without deferred=True."
        )

    @classmethod
    def sharded(cls, name: str) -> DeferredGradientError:
        return cls(
            f"the originals of {name!r} are sharded again, for example by fully_shard, before its "
            "deferred gradient has reached them. Write cached(...) without deferred=True."
        )

    @classmethod
    def captured(cls, name: str) -> DeferredGradientError:
        return cls(
            f"the capture of a CUDA graph began or ended between the evaluation of {name!r} in "
            "cached(..., deferred=True) and the use of its deferred gradient. Tensors computed "
            "in a capture have no values until the graph is replayed. Enter and leave the block "
            "inside torch.cuda.graph(...), or write cached(...) without deferred=True."
        )

    @classmethod
    def split(cls, name: str) -> DeferredGradientError:
        return cls(
            f"{name!r} has deferred gradients in a pipeline whose backward passes are split into "
            "one for inputs and one for parameters, so they would be lost. Write cached(...) "
            "without deferred=True, or use a schedule without this split, such as "
            "ScheduleInterleaved1F1B."
        )

    @classmethod
    def not_deferred(cls) -> DeferredGradientError:
        return cls(
            "this scope does not defer gradients, so they have already reached the originals. "
            "To let scope.backward() run the backward pass of the maps, write cached(..., "
            "deferred=True)."
        )


class RecipeError(ValueError):
    """The maps of a model cannot be written to a file, or cannot be made from one."""

    @classmethod
    def not_described(cls, path: str, parametrization: Module) -> RecipeError:
        return cls(
            f"{type(parametrization).__name__}, which parametrizes {path!r}, cannot be described "
            "by the arguments of its constructor. A map from another library must store each "
            "argument as an attribute of the same name; tensors must be Parameters or persistent "
            "buffers, and plain functions cannot be stored. "
            "Register the map in the __init__ of the model class instead, or bake the tensor."
        )

    @classmethod
    def shared(cls, path: str, other: str, part: Module) -> RecipeError:
        return cls(
            f"one {type(part).__name__}, which has Parameters or buffers, parametrizes both "
            f"{other!r} and {path!r}. A recipe cannot say that they share it. Register it in the "
            "__init__ of the model class instead, or give each tensor a map of its own."
        )

    @classmethod
    def unknown(cls, name: str) -> RecipeError:
        return cls(
            f"the recipe names the map {name!r}, which is not in paramdesc.parametrizations. For "
            "safety, a file cannot choose which code runs. If you trust it, pass the class: "
            "maps=[...]."
        )

    @classmethod
    def malformed(cls, what: str, found: object, why: str = "") -> RecipeError:
        return cls(
            f"{what} in a recipe cannot be read: {found!s:.200}"
            + (f", because {why:.500}" if why else "")
        )

    @classmethod
    def stale(cls, folder: str, file: str) -> RecipeError:
        return cls(
            f"{folder} has {file}, but the checkpoint has none of the originals: it is that of a "
            "model that was not parametrized, or that was baked. Remove the file, or save the "
            "model to another folder."
        )

    @classmethod
    def other_format(cls, file: str, found: object) -> RecipeError:
        return cls(f"{file} has format {found!r}, but this version of paramdesc reads format 1.")


class AdapterMergeError(RuntimeError):
    """PEFT was to write to a parametrized tensor, which would have no effect."""

    def __init__(self, call: str, names: Sequence[str], host: str) -> None:
        other = ""
        if call == "merge":
            other = (
                ", or paramdesc.integrations.peft.merge_and_unload(model), which bakes the layers "
                "that have adapters"
            )
        super().__init__(
            f"{call}() writes to {listed(names)} of {host}. The tensor is parametrized, so what is "
            f"written to its value is lost. Call paramdesc.bake(model) first{other}."
        )
