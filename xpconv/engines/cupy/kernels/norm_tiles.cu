// Instance and group normalisation of samples whose groups a block can hold, as norms.cuh has it: each number is read once.
//
// Launch: a block of (across, down) threads has `across` packs of channels, which are whole groups, of one sample, each
// thread every `down`th row of them, at most ROWS; the grid is (tiles of channels, batches). `down` is a power of two.

enum { ROWS = 8, TILE = 256 };  // rows of a thread; the most channels of a block

struct Tile {
  Index c, before, channels, rows, each;
  __device__ __forceinline__ Tile(const Layout &l)
      : c(slab_column()), channels((Index)l.channels), rows((Index)l.rows), each((Index)l.each) {
    before = blockIdx.y * rows * channels + c;
  }
  __device__ __forceinline__ bool mine() const { return c < channels; }
  __device__ __forceinline__ Index row(int r) const { return threadIdx.y + (Index)r * blockDim.y; }
  __device__ __forceinline__ Index place(int r) const { return before + row(r) * channels; }

  // Calls take(r) for each row of the thread.
  template <class Take> __device__ __forceinline__ void each_row(Take take) const {
    if (!mine()) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if (row(r) < rows) take(r);
  }
};

// For each channel what `of` makes of the numbers that its group's channels have. Every thread of the block must come here.
template <class Of> __device__ __forceinline__ Values of_groups(Values x, const Tile &tile, Of of) {
  if (tile.each == 1) return x;
  __shared__ A numbers[TILE];
  int mine = threadIdx.x * WIDTH, across = blockDim.x * WIDTH, threads = blockDim.x * blockDim.y, each = (int)tile.each;
  __syncthreads();  // the last use of `numbers` is over
  if (threadIdx.y == 0)
    for (int k = 0; k < WIDTH; k++) numbers[mine + k] = x.v[k];
  __syncthreads();
  for (int at = (threadIdx.y * blockDim.x + threadIdx.x) * each; at < across; at += threads * each) {
    A one = of(numbers + at, each);
    for (int i = 0; i < each; i++) numbers[at + i] = one;
  }
  __syncthreads();
  for (int k = 0; k < WIDTH; k++) x.v[k] = numbers[mine + k];
  return x;
}

struct FirstOf { __device__ A operator()(const A *numbers, int) const { return *numbers; } };
struct SumOf {
  __device__ A operator()(const A *numbers, int n) const {
    Sum sum;
    for (int i = 0; i < n; i++) sum.add(numbers[i]);
    return sum.value();
  }
};

// Sums over all rows of each channel's group, from those over a thread's rows.
__device__ inline Values group_sums(const Values &x, const Tile &tile) {
  return of_groups(column_sums<MOST_THREADS>(x), tile, SumOf());
}

// y = x̂ · gamma + beta; `table`, where wanted, is what x̂ is made of.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
normalise_tiles(const T *x, const T *gamma, const T *beta, T *y, A *table, double eps, const Layout l) {
  const Tile tile(l);
  Waiting<T> held[ROWS];
  Values first = filled(0), off = filled(0), squares = filled(0);
  tile.each_row([&](int r) { held[r] = load_early(x + tile.place(r)); });
  if (tile.mine()) first = widened(load(x + tile.before));
  first = of_groups(first, tile, FirstOf());
  tile.each_row([&](int r) {
    Values of = widened(held[r]);
    for (int k = 0; k < WIDTH; k++) off.v[k] += of.v[k] - first.v[k];
  });
  A share = 1 / (A)(l.rows * l.each);
  off = group_sums(off, tile);
  for (int k = 0; k < WIDTH; k++) off.v[k] *= share;
  tile.each_row([&](int r) {
    still_packed(held[r]);
    Values of = widened(held[r]);
    for (int k = 0; k < WIDTH; k++) {
      A rest = (of.v[k] - first.v[k]) - off.v[k];
      squares.v[k] += rest * rest;
    }
  });
  squares = group_sums(squares, tile);
  if (!tile.mine()) return;
  Affine at;
  Values var;
  at.beta = load_or(beta, tile.c, 0);
  at.scale = load_or(gamma, tile.c, 1);
  for (int k = 0; k < WIDTH; k++) {
    A mean = first.v[k] + off.v[k], virtual_off = mean - first.v[k];
    at.mean.v[k] = mean;
    at.drift.v[k] = (first.v[k] - (mean - virtual_off)) + (off.v[k] - virtual_off);
    var.v[k] = squares.v[k] * share;
    at.rstd.v[k] = rsqrt(var.v[k] + (A)eps);
    at.scale.v[k] *= at.rstd.v[k];
  }
  if (table && threadIdx.y == 0) {
    A *to = table + blockIdx.y * STATISTICS * tile.channels + tile.c;
    store(to + MEAN * tile.channels, at.mean);
    store(to + DRIFT * tile.channels, at.drift);
    store(to + VAR * tile.channels, var);
    store(to + RSTD * tile.channels, at.rstd);
  }
  tile.each_row([&](int r) {
    still_packed(held[r]);
    Values z = at.centred(held[r]);
    for (int k = 0; k < WIDTH; k++) z.v[k] = z.v[k] * at.scale.v[k] + at.beta.v[k];
    store(y + tile.place(r), narrowed(z));
  });
}

// dx = rstd (dy · gamma - mean(dy · gamma) - x̂ mean(dy · x̂ · gamma)), and parts[batch, 0 and 1, channel] = the sample's sums of
// dy and of dy · x̂.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
gradient_tiles(const T *x, const T *dy, const A *table, const T *gamma, T *dx, A *parts, const Layout l) {
  const Tile tile(l);
  Waiting<T> held[ROWS], held_back[ROWS];
  tile.each_row([&](int r) {
    held[r] = load_early(x + tile.place(r));
    held_back[r] = load_early(dy + tile.place(r));
  });
  const Affine at = tile.mine() ? Affine(table, 0, 0, blockIdx.y, tile.c, tile.channels) : Affine();  // gamma waits
  Values plain = filled(0), weighted = filled(0);
  tile.each_row([&](int r) {
    Values apart = at.centred(held[r]), back = widened(held_back[r]);
    for (int k = 0; k < WIDTH; k++) {
      plain.v[k] += back.v[k];
      weighted.v[k] += back.v[k] * apart.v[k];
    }
  });
  for (int k = 0; k < WIDTH; k++) weighted.v[k] *= at.rstd.v[k];
  plain = column_sums<MOST_THREADS>(plain);
  weighted = column_sums<MOST_THREADS>(weighted);
  if (tile.mine() && threadIdx.y == 0) {
    A *to = parts + blockIdx.y * 2 * tile.channels + tile.c;
    store(to, plain);
    store(to + tile.channels, weighted);
  }
  A share = 1 / (A)(l.rows * l.each);
  Values by = tile.mine() ? load_or(gamma, tile.c, 1) : filled(0);
  for (int k = 0; k < WIDTH; k++) {
    plain.v[k] *= by.v[k];
    weighted.v[k] *= by.v[k];
  }
  plain = of_groups(plain, tile, SumOf());
  weighted = of_groups(weighted, tile, SumOf());
  for (int k = 0; k < WIDTH; k++) {
    A rstd = at.rstd.v[k];
    plain.v[k] *= share * rstd;
    weighted.v[k] *= share * (rstd * rstd);
    by.v[k] *= rstd;
  }
  tile.each_row([&](int r) {
    still_packed(held[r]);
    still_packed(held_back[r]);
    Values apart = at.centred(held[r]), z = widened(held_back[r]);
    for (int k = 0; k < WIDTH; k++)
      z.v[k] = z.v[k] * by.v[k] - (plain.v[k] + apart.v[k] * weighted.v[k]);
    store(dx + tile.place(r), narrowed(z));
  });
}
