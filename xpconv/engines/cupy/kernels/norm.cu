// Batch, instance and group normalisation: x (batches, rows, groups, each), averaged over rows and the `each` channels
// of a group. Batch normalisation has one batch and groups of one channel; instance normalisation a batch per sample.
//
// x is read once for its moments: a thread takes those of some rows that it has in registers, by two sums, and merges
// them with the ones before; then threads are merged, then slabs and channels (Chan, Golub and LeVeque). Everything is
// taken about the slab's first row, so that an offset does no harm.
//
// Launch: `moments`, `normalise`, `gradient_sums` and `gradient`, the slabs of slabs.cuh with batches as the grid's third
// axis; `merge`, `merge_gradients` and `parameter_gradients`, blocks of (8, 32) threads for a group or channel each, with
// batches as the second; the others a thread for each channel in blocks of 256.

struct Layout {
  long long batches, rows, channels, each, slab, slabs;
};

// A table of statistics, for each batch and channel: what x̂ = (x - mean - drift) · rstd is made of.
enum { MEAN, DRIFT, VAR, RSTD, STATISTICS };
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

// What normalises some channels: x̂ = (x - mean - drift) · rstd, and x̂ · gamma + beta = (x - mean - drift) · scale + beta.
struct Affine {
  Values mean, drift, rstd, scale, beta;
  __device__ __forceinline__ Affine() {}
  __device__ __forceinline__ Affine(const A *table, const T *gamma, const T *beta_at, Index n, Index c, Index channels) {
    table += n * STATISTICS * channels + c;
    mean = load(table + MEAN * channels);
    drift = load(table + DRIFT * channels);
    rstd = load(table + RSTD * channels);
    scale = load_or(gamma, c, 1);
    beta = load_or(beta_at, c, 0);
    for (int k = 0; k < WIDTH; k++) scale.v[k] *= rstd.v[k];
  }
  __device__ __forceinline__ Values centred(const Pack &x) const {
    Values z;
    for (int k = 0; k < WIDTH; k++) z.v[k] = (wide(x.v[k]) - mean.v[k]) - drift.v[k];
    return z;
  }
  // dz: dy taken back through the activation, whose input is computed again.
  __device__ __forceinline__ Values before_activation(const Values &apart, const Pack &dy, int activation) const {
    Values back = widened(dy);
    if (activation == NONE) return back;
    Values z;
    for (int k = 0; k < WIDTH; k++) z.v[k] = apart.v[k] * scale.v[k] + beta.v[k];
    return back_from_input(activation, z, back);
  }
};

struct Two { Pack x, other; };

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

// parts[batch, slab, 0 and 1, channel] = the slab's sums of dz and of dz · x̂, where back(x - mean, two, r) is dz of a row.
template <class Get, class Back>
__device__ __forceinline__ void gradient_slabs(const Affine &at, A *parts, const Layout &l, Get get, Back back) {
  Index c = slab_column(), n = blockIdx.z, channels = (Index)l.channels;
  Values plain = filled(0), weighted = filled(0);
  if (c < channels)
    walk(slab_row(l.slab), slab_end(l.slab, l.rows), blockDim.y, get, [&](const auto &held, Index r) {
      Values apart = at.centred(held.x), dz = back(apart, held, r);
      for (int k = 0; k < WIDTH; k++) {
        plain.v[k] += dz.v[k];
        weighted.v[k] += dz.v[k] * (apart.v[k] * at.rstd.v[k]);
      }
    });
  plain = column_sums(plain);
  weighted = column_sums(weighted);
  if (c >= channels || threadIdx.y) return;
  A *to = parts + (n * (Index)l.slabs + blockIdx.y) * 2 * channels + c;
  store(to, plain);
  store(to + channels, weighted);
}

extern "C" __global__ void gradient_sums(const T *x, const T *dy, const A *table, const T *gamma, const T *beta, A *parts,
                                         int activation, const Layout l) {
  Index c = slab_column(), n = blockIdx.z, channels = (Index)l.channels, before = n * (Index)l.rows * channels + c;
  const Affine at = c < channels ? Affine(table, gamma, beta, n, c, channels) : Affine();
  gradient_slabs(
      at, parts, l, [&](Index r) { return Two{load(x + before + r * channels), load(dy + before + r * channels)}; },
      [&](const Values &apart, const Two &two, Index) { return at.before_activation(apart, two.other, activation); });
}

struct Three { Pack x, dy, kept; };

// The same of one batch behind the sum with a residual: `kept` is what was kept of the activation of that, and dz, which is
// the residual's gradient, is written on the way.
extern "C" __global__ void joined_gradient_sums(const T *x, const T *dy, const A *table, const T *kept, T *dz, A *parts,
                                                int activation, bool from_output, const Layout l) {
  Index c = slab_column(), channels = (Index)l.channels;
  const Affine at = c < channels ? Affine(table, 0, 0, 0, c, channels) : Affine();
  gradient_slabs(
      at, parts, l,
      [&](Index r) {
        Index i = r * channels + c;
        return Three{load(x + i), load(dy + i), load(kept + i)};
      },
      [&](const Values &, const Three &three, Index r) {
        Values of = widened(three.kept), back = widened(three.dy);
        back = from_output ? back_from_output(activation, of, back) : back_from_input(activation, of, back);
        store(dz + r * channels + c, narrowed(back));
        return back;
      });
}

struct SumsOfSlab { A plain, weighted; };

// sums[batch, 0 and 1, channel] = the means of dz · gamma and of dz · x̂ · gamma over a group.
extern "C" __global__ void merge_gradients(const A *parts, const T *gamma, A *sums, const Layout l) {
  Index group = slab_column(), n = blockIdx.y, c0 = group * (Index)l.each, items = (Index)(l.slabs * l.each);
  bool mine = group < l.channels / l.each;
  parts += n * (Index)l.slabs * 2 * (Index)l.channels;
  Sum plain, weighted;
  if (mine)
    walk(
        threadIdx.y, items, blockDim.y,
        [&](Index i) {
          Index s = l.each == 1 ? i : i / (Index)l.each, c = l.each == 1 ? c0 : c0 + i % (Index)l.each;
          A by = gamma ? wide(gamma[c]) : (A)1;
          const A *at = parts + s * 2 * l.channels + c;
          return SumsOfSlab{at[0] * by, at[l.channels] * by};
        },
        [&](const SumsOfSlab &s, Index) {
          plain.add(s.plain);
          weighted.add(s.weighted);
        });
  A count = (A)(l.rows * l.each), one = column_sums(filled(plain.value())).v[0] / count;
  A two = column_sums(filled(weighted.value())).v[0] / count;
  if (!mine) return;
  for (Index c = c0 + threadIdx.y; c < c0 + l.each; c += blockDim.y) {
    sums[(n * 2) * l.channels + c] = one;
    sums[(n * 2 + 1) * l.channels + c] = two;
  }
}

// dgamma, dbeta, and the gradients of a mean and a variance that were given (of one batch), where wanted.
extern "C" __global__ void parameter_gradients(const A *parts, const A *table, const T *gamma, T *dgamma, T *dbeta,
                                               T *dmean, T *dvar, const Layout l) {
  Index c = slab_column();
  Sum plain, weighted;
  if (c < l.channels)
    walk(
        threadIdx.y, (Index)(l.batches * l.slabs), blockDim.y,
        [&](Index s) { return SumsOfSlab{parts[s * 2 * l.channels + c], parts[(s * 2 + 1) * l.channels + c]}; },
        [&](const SumsOfSlab &s, Index) {
          plain.add(s.plain);
          weighted.add(s.weighted);
        });
  A one = column_sums(filled(plain.value())).v[0], two = column_sums(filled(weighted.value())).v[0];
  if (c >= l.channels || threadIdx.y) return;
  A rstd = table[RSTD * l.channels + c], scale = gamma ? rstd * wide(gamma[c]) : rstd;
  if (dgamma) dgamma[c] = narrow(two);
  if (dbeta) dbeta[c] = narrow(one);
  if (dmean) dmean[c] = narrow(-scale * one);
  if (dvar) dvar[c] = narrow((A)-0.5 * scale * rstd * two);
}

// dx = rstd (dz · gamma - mean(dz · gamma) - x̂ mean(dz · x̂ · gamma)); without sums the means are left out.
extern "C" __global__ void gradient(const T *x, const T *dy, const A *table, const A *sums, const T *gamma, const T *beta,
                                    T *dx, int activation, const Layout l) {
  Index c = slab_column(), n = blockIdx.z, channels = (Index)l.channels, before = n * (Index)l.rows * channels + c;
  if (c >= channels) return;
  const Affine at(table, gamma, beta, n, c, channels);
  Values plain = filled(0), weighted = filled(0);
  if (sums) {
    plain = load(sums + n * 2 * channels + c);
    weighted = load(sums + (n * 2 + 1) * channels + c);
  }
  for (int k = 0; k < WIDTH; k++) {
    plain.v[k] *= at.rstd.v[k];
    weighted.v[k] *= at.rstd.v[k] * at.rstd.v[k];
  }
  walk(
      slab_row(l.slab), slab_end(l.slab, l.rows), blockDim.y,
      [&](Index r) { return Two{load(x + before + r * channels), load(dy + before + r * channels)}; },
      [&](const Two &two, Index r) {
        Values apart = at.centred(two.x), dz = at.before_activation(apart, two.other, activation);
        for (int k = 0; k < WIDTH; k++)
          dz.v[k] = dz.v[k] * at.scale.v[k] - (plain.v[k] + apart.v[k] * weighted.v[k]);
        store(dx + before + r * channels, narrowed(dz));
      });
}
