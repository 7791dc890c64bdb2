"""Running products."""

from __future__ import annotations

from torch import Tensor

from paramdesc.linalg.devices import is_bound_by_launches
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = ["running_products"]


def running_products(x: Tensor) -> Tensor:
    """`x.cumprod(-1)` for positive numbers.

    The derivative of `cumprod` looks for zeros, for which the host waits on a GPU. There the value
    comes from sums of logarithms.

    >>> from paramdesc.linalg.running import running_products
    >>> running_products(torch.tensor([1.0, 2.0, 4.0]))
    tensor([1., 2., 8.])
    """
    if not (is_bound_by_launches(x) or is_exporting_to_onnx()):
        return x.cumprod(-1)
    return x.log().cumsum(-1).exp()
