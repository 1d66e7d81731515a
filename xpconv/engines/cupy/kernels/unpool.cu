// Max unpooling. Of several cells with one place the last in row-major order is seen: the largest number wins,
// whatever order the threads come in.
//
// Launch: one thread for each element, in blocks of 256.

// last[n, place, c] = 1 + the number of the last cell with that place; 0 where there is none (it starts as zeros).
extern "C" __global__ void find_last(const long long *places, int *last, long long n, long long cells, long long targets,
                                     long long channels) {
  FOR_EACH(i, n) {
    Index c = i % channels, cell = i / channels % cells, image = i / (channels * cells);
    long long at = places[i];
    if (at >= 0 && at < targets) atomicMax(last + (image * targets + at) * channels + c, (int)cell + 1);
  }
}

extern "C" __global__ void spread(const T *x, const int *last, T *y, long long n, long long cells, long long targets,
                                  long long channels) {
  FOR_EACH(i, n) {
    Index c = i % channels, image = i / (channels * targets);
    int cell = last[i];
    y[i] = cell ? x[(image * cells + cell - 1) * channels + c] : narrow(0);
  }
}

extern "C" __global__ void collect(const long long *places, const int *last, const T *dy, T *dx, long long n,
                                   long long cells, long long targets, long long channels) {
  FOR_EACH(i, n) {
    Index c = i % channels, cell = i / channels % cells, image = i / (channels * cells);
    long long at = places[i];
    bool seen = at >= 0 && at < targets && last[(image * targets + at) * channels + c] == (int)cell + 1;
    dx[i] = seen ? dy[(image * targets + at) * channels + c] : narrow(0);
  }
}
