// Local response normalisation over the channels of (rows, C): d = k + alpha / size · Σ x² of the neighbours.
//
// Launch: one thread for each element, in blocks of 256.

// The channels c - before .. c + after that there are, of the row of element i.
#define FOR_EACH_NEIGHBOUR(j, i, channels, before, after)                                               \
  for (Index c_ = (i) % (Index)(channels), j = (i) - (Index)min((long long)c_, (long long)(before)),    \
             last_ = (i) + (Index)min((channels) - 1 - c_, (long long)(after)); j <= last_; j++)

__device__ __forceinline__ A denominator(const T *x, Index i, long long channels, long long size, A alpha, A k) {
  Sum sum;
  FOR_EACH_NEIGHBOUR(j, i, channels, size / 2, (size - 1) / 2) sum.add(wide(x[j]) * wide(x[j]));
  return k + alpha / size * sum.value();
}

extern "C" __global__ void forward(const T *x, T *y, long long n, long long channels, long long size, double alpha,
                                   double beta, double k) {
  FOR_EACH(i, n) y[i] = narrow(wide(x[i]) * pow(denominator(x, i, channels, size, (A)alpha, (A)k), (A)-beta));
}

// Of each channel j what its neighbours' gradients take: dy x d^(-beta - 1).
extern "C" __global__ void through(const T *x, const T *dy, A *taken, long long n, long long channels, long long size,
                                   double alpha, double beta, double k) {
  FOR_EACH(i, n) {
    A d = denominator(x, i, channels, size, (A)alpha, (A)k);
    taken[i] = wide(dy[i]) * pow(d, (A)-beta) * wide(x[i]) / d;
  }
}

extern "C" __global__ void back(const T *x, const T *dy, const A *taken, T *dx, long long n, long long channels,
                                long long size, double alpha, double beta, double k) {
  FOR_EACH(i, n) {
    Sum sum;
    FOR_EACH_NEIGHBOUR(j, i, channels, (size - 1) / 2, size / 2) sum.add(taken[j]);
    A direct = wide(dy[i]) * pow(denominator(x, i, channels, size, (A)alpha, (A)k), (A)-beta);
    dx[i] = narrow(direct - (A)(2 * alpha * beta / size) * wide(x[i]) * sum.value());
  }
}
