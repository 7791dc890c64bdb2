"""Maps with the same originals and buffers as torch's, so that checkpoints are interchangeable.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.cayley import cayley
from paramdesc.linalg.exponential import skew_exp
from paramdesc.linalg.householder import householder
from paramdesc.linalg.orthogonality import renewed, turned_by
from paramdesc.linalg.precision import epsilon, matmul, widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.parametrizations.base_point import check_rebase

__all__ = ["TorchOrthogonal"]

MAPS = ("matrix_exp", "cayley", "householder")


class TorchOrthogonal(Parametrization):
    """Make `layer.weight` orthogonal, with the same tensors as torch's `orthogonal`.

    A state_dict gives the same weight in both libraries. This is the map that `orthogonal`
    registers; `Orthogonal` is faster, and not bound to torch's formulas. With
    `A = tril(X) - tril(X)ᴴ`, where a tall `X` is padded with columns of zeros:

    - `matrix_exp`: `Y = B exp(A)`,
    - `cayley`: `Y = B (I + A / 2) (I - A / 2)⁻¹`,
    - `householder`: `Y = B H` with the product `H` of the reflections whose vectors are the columns
      of `X` below the diagonal, each times the sign of the diagonal entry. These entries start as 1
      or -1 and get no gradient. (torch uses their integer part instead of their sign, so that
      weight decay turns them, and the weight, into zero.)

    For a tall `X`, the value is the first columns of `Y`; a wide `X` is transposed. `B` is the
    buffer `base`.

    Shapes `(*, m, n) -> (*, m, n)`; real, and complex except with `householder`; half precision is
    computed in float32. The cost for square matrices is that of the factor, see `paramdesc.linalg`,
    plus one product.

    Assignment and registration keep an orthogonal matrix and replace any other with the factor `Q`
    of its QR decomposition with positive diagonal of `R`, as torch does. The value becomes the
    base. Without a base, only `householder` supports assignment.

    Args:
        orthogonal_map: one of the three maps.
        use_trivialization: whether to keep a base, so that training starts from the center of the
            map's range.
        rebase: the number of training steps after which the base point moves; None for never.
        strict: whether to reject a matrix that is not orthogonal instead of replacing it.

    Raises:
        ValueError: if the map is unknown, or a matrix of another shape is assigned; with `strict`,
            if an assigned matrix is not orthogonal; the error's `deviation` is the Frobenius norm
            of `Yᴴ Y - I`.
        NotImplementedError: on assignment without a base, if the map is not `householder`.

    Source: M. Lezcano-Casado, *Trivializations for gradient-based optimization on manifolds*,
    NeurIPS 2019, section 5; for the formulas, `torch.nn.utils.parametrizations`.

    >>> linear = torch.nn.Linear(3, 3)
    >>> linear = register_parametrization(linear, "weight", TorchOrthogonal("cayley"))
    >>> torch.allclose(linear.weight @ linear.weight.T, torch.eye(3), atol=1e-6)
    True
    """

    __constants__ = ("use_trivialization",)  # TorchScript must not look for a base without it

    constraint = "orthogonal"
    base_point = ("base",)
    batching = "leading"
    base: Tensor
    shape: list[int]

    def __init__(
        self,
        orthogonal_map: str,
        *,
        use_trivialization: bool = True,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        check_rebase(rebase)
        if orthogonal_map not in MAPS:
            raise ValueError(
                'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". '
                f"Got: {orthogonal_map}"
            )
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        self.rebase = rebase
        self.shape = []
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        check_matrix(X, "orthogonal")
        if X.shape[-2] < X.shape[-1]:
            return self.tall(X.mT).mT
        return self.tall(X)

    def tall(self, X: Tensor) -> Tensor:
        """The value for `X` with at least as many rows as columns."""
        return self.square(X)[..., : X.shape[-1]].to(X.dtype)

    def square(self, X: Tensor) -> Tensor:
        """The matrix whose first columns are the value, at least in single precision."""
        if self.orthogonal_map == "householder":
            # no gradient reaches the diagonal, but weight decay does: only its signs count
            H = householder(widened(X))
            is_negative = torch.diagonal(X.detach(), dim1=-2, dim2=-1).unsqueeze(-2) < 0
            return self.based(torch.where(is_negative, -H, H))
        if self.orthogonal_map == "cayley":
            return self.cayley(skew_part(widened(X)))
        return self.based(skew_exp(skew_part(widened(X))))

    def can_move(self) -> bool:
        return self.use_trivialization and super().can_move()

    def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The original of an assigned value, and a square matrix that begins with the value."""
        tall = X.mT if X.shape[-2] < X.shape[-1] else X
        n, k = tall.shape[-2], tall.shape[-1]
        if self.orthogonal_map == "householder":  # all of the columns, not the first ones only
            more = -torch.eye(n, dtype=tall.dtype, device=tall.device)[:, k:]
            tall = torch.cat([tall, more.expand(tall.shape[:-1] + more.shape[-1:])], -1)
        return start_of(X), renewed(self.square(tall))

    def based(self, Q: Tensor) -> Tensor:
        """`B Q`."""
        if self.use_trivialization:
            base = self.base
            if base is not None:
                return matmul(widened(base.clone()), Q)
        return Q

    def cayley(self, A: Tensor) -> Tensor:
        """`B (I + A / 2) (I - A / 2)⁻¹`."""
        if self.use_trivialization:
            base = self.base
            if base is not None:
                return turned_by(widened(base.clone()), A)
        return cayley(A)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        check_matrix(Y, "orthogonal")
        if not self.use_trivialization and self.orthogonal_map != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "parametrizations when use_trivialization=False."
            )
        if self.shape and list(Y.shape) != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. "
                f"Got a tensor of shape {list(Y.shape)}."
            )
        self.admit(Y)
        self.shape = list(Y.shape)
        is_wide = Y.shape[-2] < Y.shape[-1]
        Q = widened(Y.mT if is_wide else Y)
        if self.use_trivialization:
            self.base = completed(Q, Y.dtype).to(Y.dtype)
            return start_of(Y)
        V, tau = torch.geqrf(Q)
        signs = sign_or_one(torch.diagonal(V, dim1=-2, dim2=-1))
        # LAPACK leaves a reflection out where it would do nothing, and `forward` makes it
        signs = torch.where(tau == 0, -signs, signs)
        V = V.tril(-1)
        V.diagonal(dim1=-2, dim2=-1).copy_(signs)
        return (V.mT if is_wide else V).to(Y.dtype).contiguous()

    def deviation(self, Y: Tensor) -> Tensor:
        """The Frobenius norm of `Yᴴ Y - I`, or of `Y Yᴴ - I` if `Y` is wide."""
        if Y.numel() == 0:
            return torch.zeros((), device=Y.device)
        norms: Tensor = torch.linalg.matrix_norm(distance(Y))
        return norms.amax()

    def extra_repr(self) -> str:
        shown = self.orthogonal_map
        if not self.use_trivialization:
            return f"{shown}, use_trivialization=False"
        return shown if self.rebase == Parametrization.rebase else f"{shown}, rebase={self.rebase}"


def start_of(Y: Tensor) -> Tensor:
    """The original for which the value is the base or its first columns."""
    X = torch.zeros_like(Y)
    X.diagonal(dim1=-2, dim2=-1).fill_(-1)  # reflections of zero are minus the identity
    return X


def skew_part(X: Tensor) -> Tensor:
    """`tril(X) - tril(X)ᴴ`, where a tall `X` is padded with columns of zeros."""
    n, k = X.shape[-2], X.shape[-1]
    L = X.tril()
    if n != k:
        L = torch.nn.functional.pad(L, [0, n - k])
    return L - L.mH


def distance(Y: Tensor) -> Tensor:
    """`Yᴴ Y - I`, or `Y Yᴴ - I` if that is smaller."""
    Q = widened(Y if Y.shape[-2] >= Y.shape[-1] else Y.mT)
    return matmul(Q.mH, Q) - torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)


def completed(Q: Tensor, dtype: torch.dtype) -> Tensor:
    """A square orthogonal matrix whose first columns span the columns of the tall `Q`."""
    n, k = Q.shape[-2], Q.shape[-1]
    if Q.numel() == 0:
        identity = torch.eye(n, dtype=Q.dtype, device=Q.device)
        return identity.expand([*Q.shape[:-2], n, n]).clone()
    # a generator of its own: registering a map must not shift the user's random numbers
    generator = torch.Generator("cpu").manual_seed(0)
    more = torch.randn([n, n - k], dtype=Q.dtype, generator=generator, device="cpu").to(Q.device)
    full = torch.cat([Q, more.expand([*Q.shape[:-2], n, n - k])], -1)
    found, R = torch.linalg.qr(full)
    found = found * sign_or_one(torch.diagonal(R, dim1=-2, dim2=-1)).unsqueeze(-2)
    # torch's bound; in half precision, what rounding its entries makes of an orthogonal matrix
    is_half = dtype in (torch.float16, torch.bfloat16)
    allowed = 4 * torch.finfo(dtype).eps if is_half else 1e-5 + 10 * n * epsilon(Q)
    is_orthonormal = distance(Q).abs().amax((-2, -1), keepdim=True) <= allowed
    return torch.cat([torch.where(is_orthonormal, Q, found[..., :k]), found[..., k:]], -1)


def sign_or_one(x: Tensor) -> Tensor:
    """The sign of `x`, one for zero, so that a singular weight gets an orthogonal base too."""
    return torch.where(x == 0, 1, x.sgn())
