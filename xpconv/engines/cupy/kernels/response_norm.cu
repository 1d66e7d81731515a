// Local response normalisation over the channels of (rows, C): d = k + alpha / size · Σ x² of the neighbours.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256; `packs` divides by packs of channels.

struct Response {
  long long items, channels, size;
  double share, beta, k, pull;  // alpha / size, and 2 alpha beta / size
  Divider packs;
};

// For each channel of pack i the sum of value(load(from)) over the channels from `before` in front of it to `after` behind
// it that there are in its row.
template <class E, class Value>
__device__ __forceinline__ Values neighbour_sums(const E *from, Index i, const Response &of, Index before, Index after,
                                                 Value value) {
  Index pack, last;
  split(i, of.packs, pack);
  from += (i - pack) * WIDTH;
  Index c = pack * WIDTH;
  pack = max(c - before, (Index)0) / WIDTH;
  last = min(c + (WIDTH - 1) + after, (Index)of.channels - 1) / WIDTH;
  Sums sums;
  for (; pack <= last; pack++) {
    PackOf<E> there = load(from + pack * WIDTH);
    for (int j = 0; j < WIDTH; j++) {
      A one = value(there.v[j]);
      for (int k = 0; k < WIDTH; k++) {
        Index apart = pack * WIDTH + j - (c + k);
        if (apart >= -before && apart <= after) sums.block.v[k] += one;
      }
      sums.counted();
    }
  }
  return sums.values();
}

__device__ __forceinline__ Values denominators(const T *x, Index i, const Response &of) {
  Index before = (Index)(of.size / 2), after = (Index)((of.size - 1) / 2);
  Values d = neighbour_sums(x, i, of, before, after, [](T x) { return wide(x) * wide(x); });
  for (int k = 0; k < WIDTH; k++) d.v[k] = (A)of.k + (A)of.share * d.v[k];
  return d;
}

// d^-beta; by roots where beta is 3/4, as it mostly is, since a power takes a hundred instructions.
__device__ __forceinline__ A damping(A d, A beta) {
  if (beta != (A)0.75) return pow(d, -beta);
  A root = rsqrt(d);
  return root > 0 ? root * (root * rsqrt(root)) : root;
}

extern "C" __global__ void forward(const T *x, T *y, const Response of) {
  FOR_EACH(i, of.items) {
    Values d = denominators(x, i, of), value = widened(load(x + i * WIDTH));
    for (int k = 0; k < WIDTH; k++) value.v[k] *= damping(d.v[k], (A)of.beta);
    store(y + i * WIDTH, narrowed(value));
  }
}

// Of each channel j what its neighbours' gradients take: dy x d^(-beta - 1).
extern "C" __global__ void through(const T *x, const T *dy, A *taken, const Response of) {
  FOR_EACH(i, of.items) {
    Values d = denominators(x, i, of), value = widened(load(x + i * WIDTH)), back = widened(load(dy + i * WIDTH));
    for (int k = 0; k < WIDTH; k++) back.v[k] = back.v[k] * damping(d.v[k], (A)of.beta) * value.v[k] / d.v[k];
    store(taken + i * WIDTH, back);
  }
}

extern "C" __global__ void back(const T *x, const T *dy, const A *taken, T *dx, const Response of) {
  Index before = (Index)((of.size - 1) / 2), after = (Index)(of.size / 2);
  FOR_EACH(i, of.items) {
    Values sums = neighbour_sums(taken, i, of, before, after, [](A x) { return x; });
    Values d = denominators(x, i, of), value = widened(load(x + i * WIDTH)), back = widened(load(dy + i * WIDTH));
    for (int k = 0; k < WIDTH; k++) {
      A direct = back.v[k] * damping(d.v[k], (A)of.beta);
      value.v[k] = direct - (A)of.pull * value.v[k] * sums.v[k];
    }
    store(dx + i * WIDTH, narrowed(value));
  }
}
