// Dropout by Philox-4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011): the same bits as every other engine draws.
//
// Launch: one thread for each four neighbouring elements, which share a counter, in blocks of 256.

__device__ __forceinline__ void philox(unsigned *c, unsigned k0, unsigned k1) {
  for (int round = 0; round < 10; round++) {
    unsigned high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
    unsigned high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// y = x · scale where the mask holds, else 0. The counter lies at `counter_at` where that is given.
extern "C" __global__ void drop(const T *x, T *y, bool *mask, long long n, unsigned long long seed,
                                unsigned long long counter, const unsigned long long *counter_at, unsigned threshold,
                                double scale) {
  if (counter_at) counter = *counter_at;
  FOR_EACH(block, (n + 3) / 4) {
    unsigned long long number = block;
    unsigned words[4] = {(unsigned)number, (unsigned)(number >> 32), (unsigned)counter, (unsigned)(counter >> 32)};
    philox(words, (unsigned)seed, (unsigned)(seed >> 32));
    for (int k = 0; k < 4; k++) {
      Index i = block * 4 + k;
      if (i >= n) break;
      bool keep = words[k] >= threshold;
      y[i] = keep ? narrow(wide(x[i]) * (A)scale) : narrow(0);
      if (mask) mask[i] = keep;
    }
  }
}

extern "C" __global__ void drop_back(const bool *mask, const T *dy, T *dx, long long n, double scale) {
  FOR_EACH(i, n) dx[i] = mask[i] ? narrow(wide(dy[i]) * (A)scale) : narrow(0);
}
