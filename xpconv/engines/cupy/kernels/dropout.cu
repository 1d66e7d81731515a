// Dropout by Philox-4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011): the same bits as every other engine draws.
//
// Launch: `drop`, one thread for each four neighbouring elements, which share a counter, or for each WIDTH where that is
// more, in blocks of 256; `drop_back`, one for each WIDTH.

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

constexpr int FOURS = WIDTH > 4 ? WIDTH / 4 : 1, DRAWN = 4 * FOURS, PACKS = DRAWN / WIDTH;

// y = x · scale where the mask holds, else 0. The counter lies at `counter_at` where that is given.
extern "C" __global__ void drop(const T *x, T *y, bool *mask, long long n, unsigned long long seed,
                                unsigned long long counter, const unsigned long long *counter_at, unsigned threshold,
                                double scale) {
  if (counter_at) counter = *counter_at;
  FOR_EACH(block, (n + DRAWN - 1) / DRAWN) {
    Index at = block * DRAWN;
    Pack value[PACKS];
    for (int p = 0; p < PACKS; p++)
      if (at + p * WIDTH < n) value[p] = load(x + at + p * WIDTH);
    PackOf<bool> keep[PACKS];
    for (int f = 0; f < FOURS; f++) {
      unsigned long long number = (unsigned long long)block * FOURS + f;
      unsigned words[4] = {(unsigned)number, (unsigned)(number >> 32), (unsigned)counter, (unsigned)(counter >> 32)};
      philox(words, (unsigned)seed, (unsigned)(seed >> 32));
      for (int k = 0; k < 4; k++) keep[(f * 4 + k) / WIDTH].v[(f * 4 + k) % WIDTH] = words[k] >= threshold;
    }
    for (int p = 0; p < PACKS; p++) {
      if (at + p * WIDTH >= n) break;
      for (int k = 0; k < WIDTH; k++)
        value[p].v[k] = keep[p].v[k] ? narrow(wide(value[p].v[k]) * (A)scale) : narrow(0);
      store(y + at + p * WIDTH, value[p]);
      if (mask) store(mask + at + p * WIDTH, keep[p]);
    }
  }
}

extern "C" __global__ void drop_back(const bool *mask, const T *dy, T *dx, long long items, double scale) {
  FOR_EACH(i, items) {
    PackOf<bool> keep = load(mask + i * WIDTH);
    Pack back = load(dy + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) back.v[k] = keep.v[k] ? narrow(wide(back.v[k]) * (A)scale) : narrow(0);
    store(dx + i * WIDTH, back);
  }
}
