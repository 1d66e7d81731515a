"""The integers that kernels of convolution read, by name: launchers fill a tuple, kernels know each field's place."""

from __future__ import annotations

from typing import NamedTuple

CACHE_LINE = 64  # bytes, and those of the widest vector: one that lies across two lines takes twice as long
TERM_BLOCK = 128  # terms of a sum in registers: the most that keeps constant images exact enough (parity/bounds.py)
TAP_BLOCK = 49  # taps of a depthwise sum in registers, such as 7 × 7; long rows of equal terms drift in proportion
PIXEL_BLOCK = 128  # pixels of a sum in registers, where the sum is over pixels
SUM, SETTLE, APPLY = 1, 2, 4  # steps of a norm by samples, as bits of `Samples.steps`
SAMPLE_ROWS = 6  # of a sample's table, in what either direction leaves
ROW_KEPT = 3  # numbers that a norm of rows keeps of each: mean, drift, 1 / sqrt(var + eps)
UPDATE_FIELDS = 8  # words that `kernels.update` reads of each parameter
PLANE_PAD = 192  # bytes between planes of patches, lest all of them start in the same set of the cache
LINES_BYTES = CACHE_LINE + 16 * TERM_BLOCK  # for the table of the lines that `kernels.sampling` adds up
TABLE = 512  # bytes for the addresses of a patch's cells, of a tile's pixels, or of the taps


class Walk(NamedTuple):
    """Which cells of x meet at each pixel of y; always three spatial axes. Addresses, strides and rows in bytes.

    Pixel (n, i, j, k) sums over taps (a, b, c) the cells ``x[n, i·step0 + a, j·step1 + b, k·step2 + c]``, those outside
    ``size`` being zero; a tap may be a run of neighbouring cells on the last axis.
    """

    x: int
    y: int
    images: int
    count0: int  # pixels on each axis
    count1: int
    count2: int
    size0: int  # cells on each axis
    size1: int
    size2: int
    step0: int
    step1: int
    step2: int
    x_image: int  # strides of x
    x0: int
    x1: int
    x2: int
    y_image: int  # strides of y, from pixel to pixel
    y0: int
    y1: int
    y2: int
    taps: int  # address of (a, b, c, first weight row) for each tap
    tap_count: int
    run: int  # cells of a tap
    cell: int  # bytes of a cell as far as a tap reads it
    zeros: int


class Direct(NamedTuple):
    """What `kernels.direct` reads after a `Walk`."""

    w: int
    w_row: int
    terms: int  # numbers under a tap
    out_channels: int  # of a group
    groups: int
    x_group: int  # bytes from group to group in x
    bias: int
    residual: int  # bytes from a place in y to its residual, or 0
    activation: int
    chunk: int  # pixels of a task
    panel: int  # output channels of a task
    scratch: int
    scratch_slot: int  # bytes of each slot
    sums: int  # bytes from where the sums are kept to where the activation of them goes
    cells: int  # of weights that are turned in the task: (cells, out_channels, terms), cells in reverse order; or 0
    turned: int  # bytes from a thread's scratch to where they go


class Outer(NamedTuple):
    """What `kernels.outer` reads after a `Walk`, whose y is dy."""

    dw: int
    dw_row: int
    terms: int
    out_channels: int
    groups: int
    x_group: int
    slabs: int  # each with a dw of its own
    slab_pixels: int
    slab_bytes: int
    tap_share: int  # taps of a task
    band: int  # numbers under a tap of a task
    panel: int  # output channels of a task
    stretch: int  # pixels that are looked up at a time
    scratch: int
    scratch_slot: int


class Pack(NamedTuple):
    """What `kernels.pack` reads; channels are those of a group."""

    w: int
    out: int
    cells: int
    groups: int
    in_channels: int
    out_channels: int
    strip: int  # output channels of a task


class Columns(NamedTuple):
    """What `kernels.columns` reads after a `Walk`, whose x is dx and whose y is dy."""

    w: int  # (O, kernel cells · C)
    w_row: int
    terms: int  # O
    cells1: int  # of the kernel
    cells2: int
    channels: int
    band: int  # rows of dx of a task
    one_tap: int
    scratch: int
    scratch_slot: int


class Depthwise(NamedTuple):
    """What `kernels.depthwise` reads after a `Walk`; see `Direct`."""

    w: int
    w_row: int
    w_tap: int  # bytes from tap to tap of a tap row
    w_line: int  # and from tap row to tap row of a block
    channels: int
    bias: int
    residual: int
    activation: int
    chunk: int  # groups of lines of a task
    panel: int
    scratch: int
    scratch_slot: int
    sums: int
    stream: int  # whether x and y are larger than the caches, and vectors whole lines of theirs
    outputs1: int  # on the last two axes: as many as there are pixels, or several for each
    outputs2: int


class Bands(NamedTuple):
    """What `kernels.bands` reads after a `Walk`; see `Direct`."""

    w: int
    w_row: int
    out_channels: int
    offsets: int  # address of the bytes from a pixel's first cell to each tap, or term, in what is copied
    offset_count: int
    terms: int  # numbers from each of them on
    part: int  # of them, in a running sum
    line: int  # bytes from what a line of pixels reads first to what the next one does
    row: int  # bytes of a copied row
    bias: int
    residual: int
    activation: int
    band: int  # lines of a task
    scratch: int
    scratch_slot: int
    sums: int
    stream: int  # as in `Depthwise`


class DepthwiseOuter(NamedTuple):
    """What `kernels.depthwise.depthwise_outer` reads after a `Walk`, whose y is dy; see `Outer`."""

    dw: int
    dw_row: int
    channels: int
    slabs: int
    slab_rows: int  # rows of pixels
    slab_bytes: int
    panel: int


class Reduce(NamedTuple):
    """What `kernels.outer.reduce` reads."""

    sum: int
    parts: int
    part_bytes: int
    part_count: int
    numbers: int
    piece: int  # numbers of a task


class Winograd(NamedTuple):
    """What `kernels.winograd` reads after a `Walk`."""

    u: int  # transformed weights, as `weigh` lays them out
    in_channels: int
    out_channels: int
    bias: int
    residual: int
    activation: int
    chunk: int  # tiles of a task
    panel: int  # output channels of a task
    scratch: int
    scratch_slot: int
    sums: int
    plane: int  # bytes from term to term of transformed patches
    term_rows: int  # address of "taps" that say which row of u each term starts at
    ahead: int  # tiles from a task's first to the first that is fetched meanwhile, or 0


class WinogradOuter(NamedTuple):
    """What `kernels.winograd_outer` reads after a `Walk`, whose y is dy."""

    sum: int
    in_channels: int
    out_channels: int
    slabs: int
    slab_tiles: int
    tiles: int  # taken at a time
    panel: int  # output channels of a task
    scratch: int
    scratch_slot: int
    fetches: int  # whether the next tiles are fetched meanwhile


class Weighing(NamedTuple):
    """What `kernels.winograd.weigh` reads, and `winograd_outer.unweigh`, which goes the other way."""

    w: int
    out: int
    in_channels: int
    out_channels: int
    w_row: int
    taps: int  # as in a `Walk`
    scratch: int
    slot: int  # bytes of it for a thread: a `TABLE`, and behind it what is turned
    cells: int = 0  # of weights as they came, (cells, out_channels, in_channels), in reverse order: to be turned


class Samples(NamedTuple):
    """What `kernels.groupnorm` reads; x is (samples, rows, channels), and rows of each sample are cut into slabs."""

    x: int
    dy: int
    out: int  # y, or dx
    samples: int
    rows: int
    channels: int
    each: int  # channels of a group
    slab: int  # rows
    slabs: int  # of a sample
    share: int  # samples of a task
    near: int  # whether a sample stays in a cache until it is normalised
    pieces: int  # that a sample is shared out in: 1, or its slabs
    steps: int  # of the work that are done, as bits
    parts: int  # sums of slabs: of the samples that threads have in hand, or of all if the work is done step by step
    step: int  # numbers from slab to slab
    room: int  # two rows of doubles for each thread
    table: int  # of each sample
    settled: int
    gamma: int
    beta: int
    eps: int


class Response(NamedTuple):
    """What `kernels.responsenorm` reads; x is (rows, channels)."""

    x: int
    dy: int
    out: int  # y, or dx
    rows: int
    channels: int
    before: int  # neighbours of a channel, as far as there are so many
    after: int
    gap: int  # the more of the two: zeros between rows of scratch
    share: int  # doubles, as words
    k: int
    pull: int
    quarters: int  # 4 beta
    run: int  # rows of a task
    stretch: int  # rows that are taken at a time
    scratch: int
    slot: int  # bytes of scratch for a thread: a plane forward, three back
    plane: int  # numbers
