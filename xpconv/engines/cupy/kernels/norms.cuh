// What batch, instance and group normalisation share: x (batches, rows, groups, each), averaged over rows and the `each`
// channels of a group. Batch normalisation has one batch and groups of one channel; instance normalisation a batch per
// sample.
//
// Launch: kernels that read x, the slabs of slabs.cuh with batches as the grid's third axis; those that add up what slabs
// have, blocks of (8, 32) threads for a group or channel each, with batches as the second; the others a thread for each
// channel in blocks of 256.

struct Layout {
  long long batches, rows, channels, each, slab, slabs;
};

// A table of statistics, for each batch and channel: what x̂ = (x - mean - drift) · rstd is made of.
enum { MEAN, DRIFT, VAR, RSTD, STATISTICS };

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
