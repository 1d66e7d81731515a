// Gradients of batch, instance and group normalisation, as norms.cuh has it: sums over each channel, then dx.

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
