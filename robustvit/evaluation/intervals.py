"""How far a share of some examples may be from the share of all."""

from __future__ import annotations

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of `n` independent trials (Wilson 1927)."""
    centre = share + Z95**2 / (2 * n)
    spread = Z95 * (share * (1 - share) / n + Z95**2 / (4 * n**2)) ** 0.5
    scale = 1 + Z95**2 / n
    return (max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))
