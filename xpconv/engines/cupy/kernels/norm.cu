// Batch, instance and group normalisation, as norms.cuh has it.
//
// x is read once for its moments: a thread takes those of some rows that it has in registers, by two sums, and merges
// them with the ones before; then threads are merged, then slabs and channels (Chan, Golub and LeVeque). Everything is
// taken about the slab's first row, so that an offset does no harm.

// What a slab has of a channel: its first number, the mean of what differs from it, and the squares about that mean.
enum { FIRST, SHIFT, SPREAD, MOMENTS };

struct Moments {
  Values shift = filled(0), spread = filled(0);
  A count = 0;
};

// Merges N rows, `step` apart, into the moments about `first`.
template <int N> __device__ __forceinline__ void take_rows(Moments &so_far, const T *from, Index step, const Values &first) {
  Pack held[N];
#pragma unroll
  for (int u = 0; u < N; u++) held[u] = load(from + u * step);
  so_far.count += N;
  A share = quotient((A)N, so_far.count);
  for (int k = 0; k < WIDTH; k++) {
    A sum = 0, squares = 0;
#pragma unroll
    for (int u = 0; u < N; u++) sum += wide(held[u].v[k]) - first.v[k];
    A mean = sum * (A)(1.0 / N), apart = mean - so_far.shift.v[k];
#pragma unroll
    for (int u = 0; u < N; u++) {
      A rest = (wide(held[u].v[k]) - first.v[k]) - mean;
      squares += rest * rest;
    }
    so_far.shift.v[k] += apart * share;
    so_far.spread.v[k] += squares + apart * apart * (share * (so_far.count - N));
  }
}

extern "C" __global__ void moments(const T *x, A *parts, const Layout l) {
  Index c = slab_column(), n = blockIdx.z, start = (Index)(blockIdx.y * l.slab), end = slab_end(l.slab, l.rows);
  Index channels = (Index)l.channels, step = blockDim.y * channels, r = start + threadIdx.y;
  const T *from = x + n * (Index)l.rows * channels + c;
  Values first = filled(0);
  Moments mine;
  if (c < channels) {
    constexpr int ROWS = 8;
    first = widened(load(from + start * channels));
    for (; r + (ROWS - 1) * (Index)blockDim.y < end; r += ROWS * (Index)blockDim.y)
      take_rows<ROWS>(mine, from + r * channels, step, first);
#pragma unroll 1
    for (; r < end; r += blockDim.y) take_rows<1>(mine, from + r * channels, step, first);
  }
  A share = mine.count / (A)(end - start);
  Values shift = mine.shift, spread = mine.spread;
  for (int k = 0; k < WIDTH; k++) shift.v[k] *= share;
  shift = column_sums(shift);
  for (int k = 0; k < WIDTH; k++) {
    A apart = mine.shift.v[k] - shift.v[k];
    spread.v[k] += mine.count * apart * apart;
  }
  spread = column_sums(spread);
  if (c >= channels || threadIdx.y) return;
  A *to = parts + (n * (Index)l.slabs + blockIdx.y) * MOMENTS * channels + c;
  store(to + FIRST * channels, first);
  store(to + SHIFT * channels, shift);
  store(to + SPREAD * channels, spread);
}

struct OfSlab { A first, shift, spread, rows; };

// Part i of a group, its channels before its slabs.
__device__ __forceinline__ OfSlab part_of(const A *parts, Index c0, Index i, const Layout &l) {
  Index s = l.each == 1 ? i : i / (Index)l.each, c = l.each == 1 ? c0 : c0 + i % (Index)l.each;
  const A *at = parts + s * MOMENTS * l.channels + c;
  return {at[FIRST * l.channels], at[SHIFT * l.channels], at[SPREAD * l.channels],
          (A)(min(l.rows, (s + 1) * l.slab) - s * l.slab)};
}

// The moments of a group from those of its slabs and channels; every channel of the group gets them.
extern "C" __global__ void merge(const A *parts, A *table, double eps, const Layout l) {
  Index group = slab_column(), n = blockIdx.y, c0 = group * (Index)l.each, items = (Index)(l.slabs * l.each);
  bool mine = group < l.channels / l.each;
  parts += n * (Index)l.slabs * MOMENTS * (Index)l.channels;
  A origin = mine ? parts[FIRST * l.channels + c0] : (A)0, count = (A)(l.rows * l.each);
  auto get = [&](Index i) { return part_of(parts, c0, i, l); };
  Sum shift, squares;
  if (mine)
    walk(threadIdx.y, items, blockDim.y, get,
         [&](const OfSlab &s, Index) { shift.add(((s.first - origin) + s.shift) * (s.rows / count)); });
  A off = column_sums(filled(shift.value())).v[0];
  if (mine)
    walk(threadIdx.y, items, blockDim.y, get, [&](const OfSlab &s, Index) {
      A rest = ((s.first - origin) + s.shift) - off;
      squares.add(s.spread + s.rows * rest * rest);
    });
  A mean = origin + off, virtual_off = mean - origin;
  A drift = (origin - (mean - virtual_off)) + (off - virtual_off);  // what the rounding of the mean left behind
  A var = column_sums(filled(squares.value())).v[0] / count, rstd = 1 / sqrt(var + (A)eps);
  if (!mine) return;
  for (Index c = c0 + threadIdx.y; c < c0 + l.each; c += blockDim.y) {
    A *to = table + (n * STATISTICS) * l.channels + c;
    to[MEAN * l.channels] = mean;
    to[DRIFT * l.channels] = drift;
    to[VAR * l.channels] = var;
    to[RSTD * l.channels] = rstd;
  }
}

// A table of given statistics; of none (no rows), mean and variance 0.
extern "C" __global__ void given(const T *mean, const T *var, A *table, long long n, long long channels, double eps) {
  FOR_EACH(i, n * channels) {
    A *to = table + i / channels * STATISTICS * channels + i % channels;
    A v = var ? wide(var[i]) : (A)0;
    to[MEAN * channels] = mean ? wide(mean[i]) : (A)0;
    to[DRIFT * channels] = 0;
    to[VAR * channels] = v;
    to[RSTD * channels] = 1 / sqrt(v + (A)eps);
  }
}

// Mean and variance as the op returns them.
extern "C" __global__ void statistics(const A *table, T *mean, T *var, long long channels) {
  FOR_EACH(c, channels) {
    mean[c] = narrow(table[MEAN * channels + c] + table[DRIFT * channels + c]);
    var[c] = narrow(table[VAR * channels + c]);
  }
}

// y = activation(x̂ · gamma + beta + residual); sums, where wanted, is what the activation was applied to.
extern "C" __global__ void normalise(const T *x, const A *table, const T *gamma, const T *beta, const T *residual,
                                     T *sums, T *y, int activation, const Layout l) {
  Index c = slab_column(), n = blockIdx.z, channels = (Index)l.channels;
  if (c >= channels) return;
  const Affine at(table, gamma, beta, n, c, channels);
  Index before = n * (Index)l.rows * channels + c;
  walk(
      slab_row(l.slab), slab_end(l.slab, l.rows), blockDim.y,
      [&](Index r) {
        Two two;
        two.x = load(x + before + r * channels);
        if (residual) two.other = load(residual + before + r * channels);
        return two;
      },
      [&](const Two &two, Index r) {
        Values z = at.centred(two.x);
        for (int k = 0; k < WIDTH; k++) {
          z.v[k] = z.v[k] * at.scale.v[k] + at.beta.v[k];
          if (residual) z.v[k] += wide(two.other.v[k]);
        }
        if (sums) store(sums + before + r * channels, narrowed(z));
        store(y + before + r * channels, narrowed(activate(activation, z)));
      });
}
