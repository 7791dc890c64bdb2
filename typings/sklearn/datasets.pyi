from numpy import float64, int64
from numpy.typing import NDArray

class Digits:
    data: NDArray[float64]
    target: NDArray[int64]

# the package's own name for what it returns is Bunch, whose attributes no type tells
def load_digits(*, n_class: int = 10) -> Digits: ...
