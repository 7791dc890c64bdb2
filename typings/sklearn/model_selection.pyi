from numpy import float64, int64
from numpy.typing import NDArray

# two arrays, as the digits are
def train_test_split(
    inputs: NDArray[float64],
    labels: NDArray[int64],
    /,
    *,
    test_size: float | None = None,
    stratify: NDArray[int64] | None = None,
    random_state: int | None = None,
) -> tuple[NDArray[float64], NDArray[float64], NDArray[int64], NDArray[int64]]: ...
