"""Matrix products whose sums are kept in blocks of 128 terms."""

from __future__ import annotations

from xpconv.backend import Array, namespace
from xpconv.engines.portable.pieces import BLOCK, blocks, itemsize


def plus(total: Array | None, term: Array) -> Array:
    """total + term, in place; the first term is the total (and is written to from then on)."""
    if total is None:
        return term
    total += term
    return total


def row_product(rows: Array, w: Array) -> Array:
    """rows @ w, as a sum over blocks of terms: (rows, in), (in, out) -> (rows, out)."""
    total: Array = None
    for terms in blocks(w.shape[0]):
        total = plus(total, rows[:, terms] @ w[terms, :])
    return total


def block_product(a: Array, b: Array, limit: int) -> Array:
    """a.T @ b over many rows, in blocks of 128 rows: (rows, m), (rows, n) -> (m, n)."""
    xp = namespace(a)
    m, n = a.shape[1], b.shape[1]
    total = xp.zeros((m, n), dtype=a.dtype, device=a.device)
    together = max(1, min(BLOCK, limit // max(4 * m * n * itemsize(a), 1)))  # blocks in one batched product
    whole = a.shape[0] // BLOCK * BLOCK
    for rows in blocks(whole, together * BLOCK):
        k = (rows.stop - rows.start) // BLOCK
        left = xp.reshape(a[rows, :], (k, BLOCK, m))
        right = xp.reshape(b[rows, :], (k, BLOCK, n))
        total += xp.sum(xp.matrix_transpose(left) @ right, axis=0, dtype=a.dtype)
    if whole < a.shape[0]:
        total += a[whole:, :].T @ b[whole:, :]
    return total
