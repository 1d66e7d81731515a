// Batch, instance and group normalisation: x (batches, rows, groups, each), averaged over rows and the `each` channels
// of a group. Batch normalisation has one batch and groups of one channel; instance normalisation a batch per sample.
//
// A slab of rows is read twice, the second time from cache: for its mean, taken about its first row so that an offset
// does no harm, and for the squares about that mean. Slabs and channels are then merged (Chan, Golub and LeVeque).
//
// Launch: `moments` and `gradient_sums`, a block of (columns, 256 / columns) threads for up to 32 channels of a slab, the
// grid (tiles of channels, slabs, batches); `merge` and `merge_gradients`, a thread for each group (batch, group) or
// channel; `normalise` and `gradient`, a thread for each WIDTH neighbouring channels in blocks of 256.

struct Layout {
  long long batches, rows, channels, each, slab, slabs;
};

// A table of statistics, for each batch and channel: what x̂ = (x - mean - drift) · rstd is made of.
enum { MEAN, DRIFT, VAR, RSTD, STATISTICS };

extern "C" __global__ void moments(const T *x, A *parts, const Layout l) {
  Index c = (Index)blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.z;
  Index start = blockIdx.y * l.slab, end = min((Index)l.rows, (Index)(start + l.slab));
  bool mine = c < l.channels;
  const T *from = x + n * l.rows * l.channels + c;
  A first = mine ? wide(from[start * l.channels]) : (A)0;
  Sum sum, squares;
  if (mine)
    for (Index r = start + threadIdx.y; r < end; r += blockDim.y) sum.add(wide(from[r * l.channels]) - first);
  A mean = column_sum(sum.value()) / (A)(end - start);
  if (mine)
    for (Index r = start + threadIdx.y; r < end; r += blockDim.y) {
      A rest = (wide(from[r * l.channels]) - first) - mean;
      squares.add(rest * rest);
    }
  A spread = column_sum(squares.value());
  if (!mine || threadIdx.y) return;
  A *to = parts + ((n * l.slabs + blockIdx.y) * l.channels + c) * 3;
  to[0] = first;
  to[1] = mean;
  to[2] = spread;
}

// The moments of a group from those of its slabs and channels; every channel of the group gets them.
extern "C" __global__ void merge(const A *parts, A *table, double eps, const Layout l) {
  Index groups = l.channels / l.each;
  FOR_EACH(i, l.batches * groups) {
    Index n = i / groups, c0 = i % groups * l.each;
    A origin = parts[(n * l.slabs * l.channels + c0) * 3], count = (A)max(l.rows * l.each, (long long)1);
    Sum shift, squares;
    for (Index s = 0; s < l.slabs; s++)
      for (Index c = c0; c < c0 + l.each; c++) {
        const A *at = parts + ((n * l.slabs + s) * l.channels + c) * 3;
        A terms = (A)(min(l.rows, (s + 1) * l.slab) - s * l.slab);
        shift.add(((at[0] - origin) + at[1]) * (terms / count));
      }
    A off = shift.value();
    for (Index s = 0; s < l.slabs; s++)
      for (Index c = c0; c < c0 + l.each; c++) {
        const A *at = parts + ((n * l.slabs + s) * l.channels + c) * 3;
        A terms = (A)(min(l.rows, (s + 1) * l.slab) - s * l.slab), rest = ((at[0] - origin) + at[1]) - off;
        squares.add(at[2] + terms * rest * rest);
      }
    A mean = origin + off, virtual_off = mean - origin;
    A drift = (origin - (mean - virtual_off)) + (off - virtual_off);  // what the rounding of the mean left behind
    A var = squares.value() / count, rstd = 1 / sqrt(var + (A)eps);
    for (Index c = c0; c < c0 + l.each; c++) {
      A *to = table + (n * STATISTICS) * l.channels + c;
      to[MEAN * l.channels] = mean;
      to[DRIFT * l.channels] = drift;
      to[VAR * l.channels] = var;
      to[RSTD * l.channels] = rstd;
    }
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

__device__ __forceinline__ A normal(A x, const A *at, Index channels) {
  return ((x - at[MEAN * channels]) - at[DRIFT * channels]) * at[RSTD * channels];
}

// y = activation(x̂ · gamma + beta).
extern "C" __global__ void normalise(const T *x, const A *table, const T *gamma, const T *beta, T *y, int activation,
                                     const Layout l) {
  Index packs = l.channels / WIDTH;
  FOR_EACH(i, l.batches * l.rows * packs) {
    Index c = i % packs * WIDTH, n = i / (packs * l.rows);
    Pack value = load(x + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) {
      A z = normal(wide(value.v[k]), table + n * STATISTICS * l.channels + c + k, l.channels);
      if (gamma) z *= wide(gamma[c + k]);
      if (beta) z += wide(beta[c + k]);
      value.v[k] = narrow(activate(activation, z, 0, 0));
    }
    store(y + i * WIDTH, value);
  }
}

// dz: dy taken back through the activation, whose input is computed again.
__device__ __forceinline__ A before_activation(A hat, A dy, const T *gamma, const T *beta, Index c, int activation) {
  if (activation == NONE) return dy;
  A z = gamma ? hat * wide(gamma[c]) : hat;
  if (beta) z += wide(beta[c]);
  return back_from_input(activation, z, dy, 0, 0);
}

// parts[batch, slab, 0 and 1, channel] = the slab's sums of dz and of dz · x̂.
extern "C" __global__ void gradient_sums(const T *x, const T *dy, const A *table, const T *gamma, const T *beta, A *parts,
                                         int activation, const Layout l) {
  Index c = (Index)blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.z;
  Index start = blockIdx.y * l.slab, end = min((Index)l.rows, (Index)(start + l.slab));
  Sum plain, weighted;
  if (c < l.channels)
    for (Index r = start + threadIdx.y; r < end; r += blockDim.y) {
      Index i = (n * l.rows + r) * l.channels + c;
      A hat = normal(wide(x[i]), table + n * STATISTICS * l.channels + c, l.channels);
      A dz = before_activation(hat, wide(dy[i]), gamma, beta, c, activation);
      plain.add(dz);
      weighted.add(dz * hat);
    }
  A one = column_sum(plain.value()), two = column_sum(weighted.value());
  if (c >= l.channels || threadIdx.y) return;
  A *to = parts + ((n * l.slabs + blockIdx.y) * 2) * l.channels + c;
  to[0] = one;
  to[l.channels] = two;
}

// sums[batch, 0 and 1, channel] = the means of dz · gamma and of dz · x̂ · gamma over a group.
extern "C" __global__ void merge_gradients(const A *parts, const T *gamma, A *sums, const Layout l) {
  Index groups = l.channels / l.each;
  FOR_EACH(i, l.batches * groups) {
    Index n = i / groups, c0 = i % groups * l.each;
    A count = (A)max(l.rows * l.each, (long long)1);
    Sum plain, weighted;
    for (Index s = 0; s < l.slabs; s++)
      for (Index c = c0; c < c0 + l.each; c++) {
        const A *at = parts + ((n * l.slabs + s) * 2) * l.channels + c;
        A by = gamma ? wide(gamma[c]) : (A)1;
        plain.add(at[0] * by);
        weighted.add(at[l.channels] * by);
      }
    for (Index c = c0; c < c0 + l.each; c++) {
      sums[(n * 2) * l.channels + c] = plain.value() / count;
      sums[(n * 2 + 1) * l.channels + c] = weighted.value() / count;
    }
  }
}

// dgamma, dbeta, and the gradients of a mean and a variance that were given (of one batch), where wanted.
extern "C" __global__ void parameter_gradients(const A *parts, const A *table, const T *gamma, T *dgamma, T *dbeta,
                                               T *dmean, T *dvar, const Layout l) {
  FOR_EACH(c, l.channels) {
    Sum plain, weighted;
    for (Index s = 0; s < l.batches * l.slabs; s++) {
      plain.add(parts[s * 2 * l.channels + c]);
      weighted.add(parts[(s * 2 + 1) * l.channels + c]);
    }
    A rstd = table[RSTD * l.channels + c], scale = gamma ? rstd * wide(gamma[c]) : rstd;
    if (dgamma) dgamma[c] = narrow(weighted.value());
    if (dbeta) dbeta[c] = narrow(plain.value());
    if (dmean) dmean[c] = narrow(-scale * plain.value());
    if (dvar) dvar[c] = narrow((A)-0.5 * scale * rstd * weighted.value());
  }
}

// dx = rstd (dz · gamma - mean(dz · gamma) - x̂ mean(dz · x̂ · gamma)); without sums the means are left out.
extern "C" __global__ void gradient(const T *x, const T *dy, const A *table, const A *sums, const T *gamma, const T *beta,
                                    T *dx, int activation, const Layout l) {
  Index packs = l.channels / WIDTH;
  FOR_EACH(i, l.batches * l.rows * packs) {
    Index c = i % packs * WIDTH, n = i / (packs * l.rows);
    Pack value = load(x + i * WIDTH), back = load(dy + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) {
      const A *at = table + n * STATISTICS * l.channels + c + k;
      A hat = normal(wide(value.v[k]), at, l.channels);
      A g = before_activation(hat, wide(back.v[k]), gamma, beta, c + k, activation);
      if (gamma) g *= wide(gamma[c + k]);
      if (sums) g -= sums[n * 2 * l.channels + c + k] + hat * sums[(n * 2 + 1) * l.channels + c + k];
      value.v[k] = narrow(g * at[RSTD * l.channels]);
    }
    store(dx + i * WIDTH, value);
  }
}
