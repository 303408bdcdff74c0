"""Guidance schedules: how the scale of classifier-free guidance changes over the iterations."""

import math
from collections.abc import Callable

# Guidance schedule -> share of the guidance scale in iteration t (0-based), as a function of t/T.
GUIDANCE: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: t,  # Muse (Chang et al., 2023)
    "power_cosine": lambda t: (1 - math.cos(math.pi * t**4)) / 2,  # MDT (Gao et al., 2023)
}
