"""`parametrized`: registration as a decorator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import wrapt
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.function_map import as_map
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.registration.register import register_parametrization

__all__ = ["parametrized"]

M = TypeVar("M", bound=Module)
_P = ParamSpec("_P")


class Decorator(Protocol):
    """What `parametrized(...)` returns: a decorator that keeps the type of its target."""

    @overload
    def __call__(self, target: type[M], /) -> type[M]: ...
    @overload
    def __call__(self, target: M, /) -> M: ...
    @overload
    def __call__(self, target: Callable[_P, M], /) -> Callable[_P, M]: ...


def parametrized(
    tensor_name: str,
    parametrization: ParametrizationProto | TensorMap,
    *,
    unsafe: bool = False,
    right_inverse: Callable[[Tensor], Any] | None = None,
) -> Decorator:
    """Decorate a class, function or module to parametrize `module.<tensor_name>`.

    - A module class: every instance is parametrized as soon as the `__init__` of this class has
      run, with its own deep copy of `parametrization`. The class itself is returned; it can be
      pickled and subclassed, and keeps its signature. If a subclass assigns to the tensor, the
      value goes through `right_inverse`.
    - A function that returns a module: every returned module is parametrized in the same way.
    - A module: this module is parametrized immediately, with `parametrization` itself.

    Stacked decorators apply bottom-up.

    The arguments are those of `register_parametrization`.

    Raises:
        TypeError: if the target is none of these, or a decorated function returns something that is
            not a module.
        ValueError: when an instance is created, if it has no such tensor or the map does not fit
            the tensor.

    >>> @parametrized("weight", Symmetric())
    ... class SymmetricLinear(torch.nn.Linear):
    ...     pass
    >>> is_parametrized(SymmetricLinear(3, 3), "weight")
    True
    """
    as_map(parametrization, right_inverse)  # raises here if it is not a map

    def register(module: M, own: Any) -> M:
        return register_parametrization(
            module, tensor_name, own, unsafe=unsafe, right_inverse=right_inverse
        )

    def decorate(target: Any) -> Any:
        if isinstance(target, type) and issubclass(target, Module):
            return register_instances(
                target, lambda it: register(it, copy.deepcopy(parametrization))
            )
        if isinstance(target, Module):
            return register(target, parametrization)
        if isinstance(target, classmethod) or (callable(target) and not isinstance(target, type)):
            return register_results(target, lambda it: register(it, copy.deepcopy(parametrization)))
        raise TypeError(
            "parametrized(...) decorates a module class, a module, or a function that returns a "
            f"module. Got {target!r:.200}."
        )

    return decorate


def register_instances(cls: type[M], register: Callable[[Module], Module]) -> type[M]:
    """Call `register` on each instance, after the `__init__` of `cls`."""
    inherited = "__init__" not in vars(cls)

    def initialize(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        # an inherited __init__ is looked up for each instance: with several bases, the next class
        # in the method resolution order depends on the class of the instance
        (super(cls, instance).__init__ if inherited else wrapped)(*args, **kwargs)
        register(instance)

    cls.__init__ = wrapt.FunctionWrapper(cls.__init__, initialize)  # type: ignore[method-assign]
    return cls


class Factory(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A decorated function. Like a plain function, it is pickled by name, and is its own copy."""

    def __reduce_ex__(self, protocol: Any) -> str:
        return str(self.__qualname__)

    def __copy__(self) -> Factory:
        return self

    def __deepcopy__(self, memo: Any) -> Factory:
        return self


def register_results(function: Any, register: Callable[[Module], Module]) -> Any:
    """Call `register` on each module that `function` returns."""

    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        module = wrapped(*args, **kwargs)
        if not isinstance(module, Module):
            raise TypeError(
                f"{wrapped.__qualname__} is decorated with parametrized(...) and returned "
                f"{type(module).__name__}, which is not a module. Return the module that it "
                "creates."
            )
        return register(module)

    return Factory(function, call)
