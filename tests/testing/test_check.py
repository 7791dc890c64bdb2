"""`check_parametrization` finds what is wrong with a map, says so, and says what to change."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import Parametrization
from paramdesc.linalg.precision import matmul, widened
from paramdesc.testing import CheckError, check_parametrization
from paramdesc.testing.check import CHECKS


class Good(Parametrization):
    """Matrices that are zero above the diagonal."""

    constraint = "lower triangular"

    def forward(self, X: Tensor) -> Tensor:
        return X.tril()

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y.tril()

    def deviation(self, Y: Tensor) -> Tensor:
        return (Y - Y.tril()).abs().sum()


class Shape(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril().double()


class Schema(Good):
    constraint = ""


class RightInverse(Good):
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return 2 * Y.tril()


class Finite(nn.Module):
    """Its right inverse knows nothing of what forward does not reach."""

    def forward(self, X: Tensor) -> Tensor:
        return nn.functional.softplus(X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.expm1().log()


class FiniteForward(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.log()

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


class Strict(Good):
    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.tril()


class Constraint(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril() + 1e-3 * X.mT


class Gradient(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.detach().tril() + 0 * X


class SavesInputs(torch.autograd.Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)


class WrongBackward(SavesInputs):
    @staticmethod
    def forward(X: Tensor) -> Tensor:
        return X.tril()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (X,) = ctx.saved_tensors
        result: Tensor = gradients[0].tril() + 0.1 * X
        return result


class GradientOfFunction(Good):
    def forward(self, X: Tensor) -> Tensor:
        result: Tensor = WrongBackward.apply(X)  # type: ignore[no-untyped-call]
        return result


class OnceDifferentiable(SavesInputs):
    @staticmethod
    def forward(X: Tensor) -> Tensor:
        return X.tril() ** 3

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (X,) = ctx.saved_tensors
        result: Tensor = 3 * X.detach().tril() ** 2 * gradients[0]
        return result


class SecondGradient(Good):
    def forward(self, X: Tensor) -> Tensor:
        result: Tensor = OnceDifferentiable.apply(X)  # type: ignore[no-untyped-call]
        return result

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y.tril().sgn() * Y.tril().abs() ** (1 / 3)


class SpecialPoints(Good):
    def forward(self, X: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(X.tril())
        return X.tril() * norm / norm


class Saturated(nn.Module):
    """Its right inverse puts each original where the sigmoid is flat."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.sigmoid(X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        return torch.full_like(Y, -20.0)


class Reversed(torch.autograd.Function):
    """The identity, with a gradient of the wrong sign."""

    @staticmethod
    def forward(X: Tensor) -> Tensor:
        return X.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:  # noqa: ARG004
        result: Tensor = -gradients[0]
        return result


class Ascending(Good):
    def forward(self, X: Tensor) -> Tensor:
        result: Tensor = Reversed.apply(X)  # type: ignore[no-untyped-call]
        return result.tril()


class Based(Good):
    """A right map with a base point: `tril(X) + base`."""

    base_point = ("base",)
    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        base: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", torch.zeros(1, 1))

    def forward(self, X: Tensor) -> Tensor:
        return X.tril() + self.base.clone()

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        self.base = torch.zeros_like(Y)
        return Y.tril()

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(X), self.forward(X)


class Drifting(Based):
    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        return X.tril() / 2, self.base.clone()


class Replacing(Based):
    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        self.base = self.forward(X)
        return torch.zeros_like(X), self.base


class Batch(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril() * (1 + X.shape[0] // X.shape[-1] - 1)


class EmptyBatch(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril() * (1 + 0 * X.detach().abs().max())


class Vmap(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril() if X.isfinite().all() else X


class Precision(Good):
    def forward(self, X: Tensor) -> Tensor:
        return (X.tril() + 3000) - 3000


class Autocast(Good):
    def forward(self, X: Tensor) -> Tensor:
        return (X @ torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)).tril()


class Determinism(Good):
    def forward(self, X: Tensor) -> Tensor:
        return X.tril() + 1e-12 * torch.rand_like(X).tril()


class Counting(Good):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._buffers["count"] = self.count + 1
        return X.tril()


class Copies(Good):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda x: x

    def forward(self, X: Tensor) -> Tensor:
        return X.tril()


class Checkpoint(Good):
    def __init__(self) -> None:
        super().__init__()
        self.base: Any = None

    def forward(self, X: Tensor) -> Tensor:
        return X.tril() if self.base is None else X.tril() + self.base.to(X.device, X.dtype)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        self.base = Y.tril()
        return torch.zeros_like(Y)


class Meta(Good):
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        return Y.tril() if Y.sum().item() < 1e9 else Y


class TorchEngine(Good):
    def forward(self, X: Tensor) -> Tensor:
        assert getattr(self, "seen", False) or X.requires_grad is False
        return X.tril()

    def right_inverse(self, Y: Tensor) -> Tensor:
        if any("torch/nn/utils/parametrize" in frame.filename for frame in stack()):
            raise ValueError("not here")
        return super().right_inverse(Y)


def stack() -> Any:
    import inspect

    return inspect.stack(0)


class Script(Good):
    def forward(self, *originals: Tensor) -> Tensor:
        return originals[0].tril()


class Compile(Good):
    def forward(self, X: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return X if float(X.detach().sum()) > 1e9 else X.tril()
        return X.tril()


BROKEN: list[tuple[type[nn.Module], str, str]] = [
    (Shape, "shape", "float64"),
    (Schema, "schema", "not constraint"),
    (Finite, "finite", "Finite.right_inverse gives "),
    (FiniteForward, "finite", "%) that are infinite or NaN for the example, which is finite"),
    (RightInverse, "right inverse", "differs by"),
    (Strict, "strict", "accepts a value that violates its constraint"),
    (Constraint, "constraint", "deviates by"),
    (Gradient, "gradient", "Jacobian mismatch"),
    (GradientOfFunction, "gradient", "Jacobian mismatch"),
    (SecondGradient, "second gradient", "Jacobian mismatch"),
    (SpecialPoints, "special points", "infinite or NaN"),
    (Gradient, "trains", "the gradient vanishes: 0 times"),
    (Saturated, "trains", "the gradient vanishes: 2.1e-09 times"),
    (Ascending, "trains", "no step size lowers a random linear loss in 10 steps of SGD"),
    (Drifting, "base point", "after recenter(): differs by"),
    (Replacing, "base point", "recenter() replaced a tensor"),
    (Batch, "batch", "a stack of two"),
    (EmptyBatch, "empty batch", "max()"),
    (Vmap, "vmap", "data-dependent"),
    (Precision, "precision", "differs by"),
    (Autocast, "autocast", "under autocast"),
    (Determinism, "determinism", "random number generator"),
    (Counting, "determinism", "changes"),
    (Copies, "copies", "local object"),
    (Checkpoint, "checkpoint", "state_dict"),
    (Meta, "meta", "meta"),
    (TorchEngine, "torch engine", "not here"),
    (Script, "script", "TorchScript"),
    (Compile, "compile", ""),
    (Compile, "export", ""),
]


def test_a_good_map_passes_everything() -> None:
    report = check_parametrization(Based(), torch.randn(3, 3))
    assert {outcome.status for outcome in report} == {"passed"}
    assert [outcome.check for outcome in report] == list(CHECKS)


@pytest.mark.parametrize(("broken", "check", "words"), BROKEN)
def test_a_broken_map_is_found_out(broken: type[nn.Module], check: str, words: str) -> None:
    with pytest.raises(CheckError) as caught:
        check_parametrization(broken(), torch.randn(3, 3))
    outcome = caught.value.report[check]
    assert outcome.status == "failed"
    assert words in outcome.detail
    assert outcome.advice == CHECKS[check][1]
    assert outcome.advice.split()[0] in str(caught.value)


def test_every_check_but_the_tracers_is_seen_to_fail() -> None:
    assert set(CHECKS) - {check for _, check, _ in BROKEN} == {"trace"}


# what is declared


def double(X: Tensor) -> Tensor:
    return 2 * X


def test_a_function_is_a_map_without_right_inverse() -> None:
    report = check_parametrization(double, torch.randn(3, 3), right_inverse="none")
    assert report["right inverse"].detail == "none: MissingRightInverseError"
    assert report["constraint"].status == "left out"
    assert "double on [3, 3], torch.float32" in str(report)


def test_what_does_not_apply_is_left_out_with_its_reason() -> None:
    report = check_parametrization(
        Script(), torch.randn(3, 3), without={"script": "it takes any number of tensors"}
    )
    assert report["script"].status == "left out"
    assert report["script"].detail == "it takes any number of tensors"


def test_unknown_checks_are_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"unknown checks \['scripting'\]: the checks are shape"):
        check_parametrization(Good(), torch.randn(3, 3), without={"scripting": "no"})


@pytest.mark.parametrize("declared", ["identity", "none"])
def test_a_wrong_declaration_is_found_out(declared: Any) -> None:
    report = check_parametrization(Good(), torch.randn(3, 3), right_inverse=declared, raises=False)
    assert report["right inverse"].status == "failed"


def test_the_map_and_the_example_are_left_alone() -> None:
    parametrization, example = Checkpoint(), torch.randn(3, 3)
    before = example.clone()
    check_parametrization(parametrization, example, raises=False)
    assert parametrization.base is None
    assert example.equal(before)


def test_several_originals_are_checked_each() -> None:
    report = check_parametrization(Factors(), torch.randn(3, 4), right_inverse="projection")
    assert report["gradient"].detail == "of original0, original1"


class Factors(nn.Module):
    """Matrices of rank two at most."""

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return matmul(widened(A), widened(B)).to(A.dtype)

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        U, S, Vh = torch.linalg.svd(widened(Y), full_matrices=False)
        return (U[..., :2] * S[..., None, :2]).to(Y.dtype), Vh[..., :2, :].to(Y.dtype)


def test_a_report_can_be_asked_for_each_check() -> None:
    report = check_parametrization(RightInverse(), torch.randn(3, 3), raises=False)
    assert [outcome.check for outcome in report.failed][:1] == ["right inverse"]
    assert "failed" in repr(report)
    with pytest.raises(KeyError):
        report["other"]


def test_the_size_of_the_gradient_is_reported() -> None:
    report = check_parametrization(double, torch.randn(3, 3), right_inverse="none")
    assert report["trains"].detail == "2 times the gradient of a plain weight"


class Constant(Good):
    def forward(self, X: Tensor) -> Tensor:
        return 0 * X + torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)


class Rounded(nn.Module):
    """Its value is piecewise constant, and its gradient that of the identity."""

    def forward(self, X: Tensor) -> Tensor:
        return X + (X.round() - X).detach()

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


class Tiny(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return 1e-5 * X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return 1e5 * Y


class Huge(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.pow(3) * 1e8


@pytest.mark.parametrize("parametrization", [Rounded(), Tiny(), Huge(), nn.Softmax(dim=-1)])
def test_maps_of_any_scale_and_with_steps_train(parametrization: nn.Module) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        report = check_parametrization(
            parametrization, torch.randn(4, 3), right_inverse="none", raises=False
        )
        assert report["trains"].status == "passed"


def test_what_cannot_be_trained_is_left_out() -> None:
    report = check_parametrization(Constant(), torch.randn(3, 3), raises=False)
    assert report["trains"].detail == "no trained tensor changes the value"
    assert report["trains"].status == "left out"
    report = check_parametrization(
        torch.signbit, torch.randn(3, 3), right_inverse="none", unsafe=True, raises=False
    )
    assert report["trains"].detail == "a value of torch.bool has no gradient"


class Clamping(nn.Module):
    """A right map at whose kink `right_inverse` puts the original."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.relu(X)

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.clamp(min=0)


class ClampingInPlace(Clamping):
    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.clamp_(min=0)


def test_a_kink_where_the_original_is_put_is_no_wrong_gradient() -> None:
    check_parametrization(Clamping(), torch.randn(3, 3))


def test_a_right_inverse_that_writes_to_what_is_assigned_is_found_out() -> None:
    report = check_parametrization(ClampingInPlace(), torch.randn(3, 3), raises=False)
    assert "writes to the tensor" in report["right inverse"].detail


def test_a_map_that_refuses_values_by_an_error_passes_the_check_for_finite_ones() -> None:
    report = check_parametrization(Refusing(), torch.rand(3, 3) + 0.1, raises=False)
    assert report["finite"].status == "passed"
    found = check_parametrization(Finite(), torch.tensor([[-1.0, 2.0], [3.0, 4.0]]), raises=False)
    assert "1 of 4 entries (25%)" in found["finite"].detail


class Refusing(Finite):
    def right_inverse(self, Y: Tensor) -> Tensor:
        if not bool((Y > 0).all()):
            raise ValueError("positive values only")
        return super().right_inverse(Y)


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
def test_torchs_deprecations_are_no_failures_where_warnings_are_errors(
    category: type[Warning], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("script", "trace", "save", "load"):
        monkeypatch.setattr(torch.jit, name, deprecated(name, category))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_parametrization(Good(), torch.randn(3, 3))
    assert report["script"].status == report["trace"].status == "passed"


def deprecated(name: str, category: type[Warning]) -> Any:
    function = getattr(torch.jit, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        text = f"`torch.jit.{name}` is deprecated. Please switch to `torch.compile`."  # torch's
        warnings.warn(text, category, stacklevel=2)
        return function(*args, **kwargs)

    return call


class Deprecated(Good):
    def forward(self, X: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            warnings.warn("Good is deprecated.", FutureWarning, stacklevel=2)
        return X.tril()


def test_other_deprecations_are_not_hidden() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_parametrization(Deprecated(), torch.randn(3, 3), raises=False)
    assert report["gradient"].status == report["trace"].status == "failed"
    assert "Good is deprecated." in report["trace"].detail


def test_maps_can_be_checked_under_another_default_device() -> None:
    example = torch.randn(3, 3)
    with torch.device("meta"):
        check_parametrization(Good(), example)


def test_a_base_point_that_moves() -> None:
    report = check_parametrization(Based(), torch.randn(3, 3), raises=False)
    assert report["base point"].status == "passed"
    report = check_parametrization(Good(), torch.randn(3, 3), raises=False)
    assert report["base point"].detail == "the map defines no recenter()"
