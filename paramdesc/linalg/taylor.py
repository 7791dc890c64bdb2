"""A Taylor polynomial of the exponential of a matrix, of degree 18, in five products.

Source: P. Bader, S. Blanes, F. Casas, *Computing the matrix exponential with an optimized
Taylor polynomial approximation*, Mathematics 7 (2019), 1174.
"""

from __future__ import annotations

__all__ = ["FACTORS", "RADIUS"]

# Theorem 2 and table 2 of the paper: rows give factors in terms of I, A, A², A³, A⁶.
FACTORS = (
    (0.0, -0.100365581030144618, -0.00802924648241156932, -0.000892138498045729985, 0.0),
    (0.0, 0.397849749499645078, 1.36783778460411720, 0.498289622525382669,
     -0.000637898194594723280),
    (-10.9676396052962062, 1.68015813878906206, 0.0571779846478865511, -0.00698210122488052056,
     3.34975017086070471e-05),
    (-0.0904316832390810593, -0.0676404519071381882, 0.0675961301770459655, 0.0295552570429315521,
     -1.39180257516060693e-05),
    (0.0, 0.0, -0.0923364619367118555, -0.0169364939002081723, -1.40086798182036094e-05),
)  # fmt: skip

RADIUS = {False: 3.01, True: 1.09}
"""The norm up to which the polynomial is exact to rounding, in single and in double precision."""
