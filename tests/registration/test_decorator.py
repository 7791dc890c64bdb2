"""`parametrized`: on classes, modules and functions that return modules."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from paramdesc import parametrized, register_parametrization
from paramdesc.errors import AssignmentError
from paramdesc.parametrizations import Symmetric
from tests.helpers import Double, Shift, chain_of, saved_and_loaded


@parametrized("weight", Double())
class Own(nn.Linear):
    """Has an `__init__` of its own."""

    def __init__(self, n: int, m: int = 3) -> None:
        """Make it n by m."""
        super().__init__(n, m)


@parametrized("weight", Double())
class Inherited(nn.Linear):
    pass


class Derived(Own):
    pass


class DerivedWithInit(Own):
    def __init__(self, n: int, tag: str = "tag") -> None:
        super().__init__(n)
        self.tag = tag


class Assigns(Own):
    def __init__(self) -> None:
        super().__init__(3)
        self.weight: Any = torch.ones(3, 3)


@parametrized("weight", Symmetric())
@parametrized("weight", Double())
class Stacked(nn.Linear):
    pass


@parametrized("bias", Shift())
@parametrized("weight", Double())
class TwoTensors(nn.Linear):
    pass


@parametrized("weight", Symmetric())
class DecoratedTwice(Own):
    pass


class Tagged:
    def __init__(self, *args: Any, tag: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = tag


@parametrized("weight", Double())
class Mixed(Tagged, nn.Linear):
    pass


class MixedIn(Inherited, Tagged):
    pass


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))


@parametrized("weight", Double())
class Left(Base):
    pass


class Right(Base):
    def __init__(self) -> None:
        super().__init__()
        self.right = True


class Diamond(Left, Right):
    """`Left.__init__` is inherited, and `Right.__init__` must run all the same."""


@parametrized("weight", Double())
@dataclasses.dataclass(eq=False)
class DataClass(nn.Module):
    n: int = 3

    def __post_init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(self.n))


@parametrized("weight", Double())
def make_linear(n: int) -> nn.Linear:
    """Make a square layer."""
    return nn.Linear(n, n)


class Factories:
    @parametrized("weight", Double())
    @staticmethod
    def static_inside(n: int) -> nn.Linear:
        return nn.Linear(n, n)

    @staticmethod
    @parametrized("weight", Double())
    def static_outside(n: int) -> nn.Linear:
        return nn.Linear(n, n)

    @classmethod
    @parametrized("weight", Double())
    def class_outside(cls, n: int) -> nn.Linear:
        assert cls is Factories
        return nn.Linear(n, n)

    @parametrized("weight", Double())
    def method(self, n: int) -> nn.Linear:
        assert isinstance(self, Factories)
        return nn.Linear(n, n)


MAKERS: dict[str, tuple[Callable[[], Any], list[type]]] = {
    "own init": (lambda: Own(3), [Double]),
    "inherited init": (lambda: Inherited(3, 3), [Double]),
    "subclass": (lambda: Derived(3), [Double]),
    "subclass with init": (lambda: DerivedWithInit(3), [Double]),
    "subclass that assigns": (Assigns, [Double]),
    "stacked, bottom-up": (lambda: Stacked(3, 3), [Double, Symmetric]),
    "decorated subclass": (lambda: DecoratedTwice(3), [Double, Symmetric]),
    "mixin": (lambda: Mixed(3, 3, tag="x"), [Double]),
    "mixed in": (lambda: MixedIn(3, 3), [Double]),
    "diamond": (Diamond, [Double]),
    "dataclass": (DataClass, [Double]),
    "function": (lambda: make_linear(3), [Double]),
    "static method, inside": (lambda: Factories.static_inside(3), [Double]),
    "static method, outside": (lambda: Factories.static_outside(3), [Double]),
    "class method, outside": (lambda: Factories.class_outside(3), [Double]),
    "method": (lambda: Factories().method(3), [Double]),
    "partial": (
        lambda: parametrized("weight", Double())(functools.partial(nn.Linear, 3, 3))(),
        [Double],
    ),
}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> tuple[Callable[[], Any], list[type]]:
    return MAKERS[request.param]


def test_every_module_is_parametrized_once(maker: tuple[Callable[[], Any], list[type]]) -> None:
    make, maps = maker
    module = make()
    assert [type(found) for found in chain_of(module).maps()] == maps


def test_every_module_has_maps_of_its_own(maker: tuple[Callable[[], Any], list[type]]) -> None:
    make, _ = maker
    first, second = make(), make()
    assert not set(chain_of(first).maps()) & set(chain_of(second).maps())
    assert chain_of(first).original is not chain_of(second).original


@pytest.mark.parametrize(
    "make_copy", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), saved_and_loaded]
)
def test_modules_can_be_copied(
    maker: tuple[Callable[[], Any], list[type]], make_copy: Callable[[Any], Any]
) -> None:
    make, maps = maker
    module = make()
    twin = make_copy(module)
    assert type(twin) is type(module)
    assert twin.weight.equal(module.weight)
    assert [type(found) for found in chain_of(twin).maps()] == maps


def test_decorated_class_is_the_same_class() -> None:
    class Plain(nn.Linear):
        pass

    assert parametrized("weight", Double())(Plain) is Plain
    assert isinstance(Own(3), nn.Linear)
    assert issubclass(Derived, Own)
    assert pickle.loads(pickle.dumps(Own)) is Own


def test_class_keeps_its_signature_and_docs() -> None:
    assert list(inspect.signature(Own).parameters) == ["n", "m"]
    assert inspect.signature(Own).parameters["m"].default == 3
    assert inspect.signature(Inherited) == inspect.signature(nn.Linear)
    assert Own.__doc__ == "Has an `__init__` of its own."
    assert Own.__init__.__doc__ == "Make it n by m."
    assert (Own.__name__, Own.__qualname__, Own.__module__) == ("Own", "Own", __name__)


def test_base_classes_are_not_changed() -> None:
    assert "weight" in nn.Linear(3, 3)._parameters
    assert inspect.isfunction(nn.Linear.__init__)
    assert "weight" in Base()._parameters


def test_function_keeps_its_signature_and_docs() -> None:
    assert list(inspect.signature(make_linear).parameters) == ["n"]
    assert make_linear.__doc__ == "Make a square layer."
    assert make_linear.__name__ == "make_linear"


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_decorated_function_pickles_as_a_plain_one(make_copy: Callable[[Any], Any]) -> None:
    assert chain_of(make_copy(make_linear)(3)).is_tensor


def test_every_init_in_a_diamond_runs() -> None:
    assert Diamond().right
    assert Mixed(3, 3, tag="x").tag == "x"
    assert DerivedWithInit(3, tag="y").tag == "y"


def test_map_of_the_decorator_is_never_registered_itself() -> None:
    shift = Shift()

    @parametrized("weight", shift)
    class Shifted(nn.Linear):
        pass

    Shifted(3, 3)(torch.ones(2, 3)).sum().backward()
    assert shift.shift.grad is None


def test_assignment_in_a_subclass_goes_through_right_inverse() -> None:
    layer = Assigns()
    assert layer.weight.equal(torch.ones(3, 3))
    assert chain_of(layer).original.equal(torch.full((3, 3), 0.5))


def test_parameter_assigned_in_a_subclass_is_refused() -> None:
    class Replaces(Own):
        def __init__(self) -> None:
            super().__init__(3)
            self.weight = nn.Parameter(torch.ones(3, 3))

    with pytest.raises(AssignmentError, match="right_inverse"):
        Replaces()


def test_module_is_registered_on_in_place_with_the_map_itself() -> None:
    layer, double = nn.Linear(3, 3), Double()
    assert parametrized("weight", double)(layer) is layer
    assert chain_of(layer)[0] is double


def test_several_tensors_of_one_class() -> None:
    layer = TwoTensors(3, 3)
    assert list(layer.parametrizations) == ["weight", "bias"]  # type: ignore[arg-type]


def test_plain_function_with_its_inverse_is_a_map() -> None:
    @parametrized("bias", torch.exp, right_inverse=torch.log)
    class Positive(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.bias.data.fill_(2.0)

        def reset_parameters(self) -> None:
            super().reset_parameters()
            with torch.no_grad():
                self.bias.fill_(2.0)

    layer = Positive()
    torch.testing.assert_close(layer.bias, torch.full((3,), 2.0))


def test_unsafe_reaches_the_registration() -> None:
    def halves(X: torch.Tensor) -> torch.Tensor:
        return X[: len(X) // 2]

    unsafe = parametrized("weight", halves, unsafe=True)(functools.partial(nn.Linear, 3, 4))
    assert unsafe().weight.shape == (2, 3)
    with pytest.raises(ValueError, match="shape"):
        parametrized("weight", halves)(functools.partial(nn.Linear, 3, 4))()


def test_lazy_classes_are_parametrized_at_their_first_call() -> None:
    @parametrized("weight", Double())
    class Lazy(nn.LazyLinear):
        pass

    layer: Any = Lazy(4)
    layer(torch.ones(2, 3))
    assert chain_of(layer).original.shape == (4, 3)


def test_compiled_instances_run() -> None:
    layer = Own(3)
    inputs = torch.ones(2, 3)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), layer(inputs))


# what it refuses


def test_missing_tensor_is_told_at_construction_with_the_names_that_exist() -> None:
    @parametrized("wieght", Double())
    class Misspelt(nn.Linear):
        pass

    with pytest.raises(ValueError, match=r"Misspelt .*'wieght'.*'weight', 'bias'"):
        Misspelt(3, 3)


@pytest.mark.parametrize("target", [3, None, int, object()])
def test_what_is_no_class_module_or_function_is_refused(target: Any) -> None:
    with pytest.raises(TypeError, match="a module class, a module, or a function"):
        parametrized("weight", Double())(target)


@pytest.mark.parametrize("parametrization", [3, None, Double, nn.Module()])
def test_what_is_no_map_is_refused_where_it_is_written(parametrization: Any) -> None:
    with pytest.raises(TypeError, match="Not a parametrization"):
        parametrized("weight", parametrization)


def test_function_that_returns_no_module_is_told_what_it_returned() -> None:
    @parametrized("weight", Double())  # type: ignore[type-var]
    def make() -> int:
        return 3

    with pytest.raises(TypeError, match=r"make .*returned int"):
        make()


def test_registration_by_hand_afterwards_adds_a_map() -> None:
    layer = register_parametrization(Own(3), "weight", Symmetric())
    assert [type(found) for found in chain_of(layer).maps()] == [Double, Symmetric]
