// Max unpooling. Of several cells with one place the last in row-major order is seen: the largest number wins,
// whatever order the threads come in.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256.

// Arrays of (images, cells, C) and (images, targets, C), with what divides by packs of channels, cells and targets.
struct Planes {
  long long cells, targets, channels;
  Divider packs, by_cells, by_targets;
};

struct Place {
  Index image, c, cell;  // cell or target
  __device__ __forceinline__ Place(Index i, const Planes &p, const Divider &by) {
    Index pack;
    image = split(split(i, p.packs, pack), by, cell);
    c = pack * WIDTH;
  }
  // Of channel k at `cell` of an array with so many cells in a plane.
  __device__ __forceinline__ Index at(Index cells, Index cell, const Planes &p) const {
    return (image * cells + cell) * (Index)p.channels + c;
  }
};

__device__ __forceinline__ bool inside_of(long long at, const Planes &p) { return at >= 0 && at < p.targets; }

// last[n, place, c] = 1 + the number of the last cell with that place; 0 where there is none (it starts as zeros).
extern "C" __global__ void find_last(const long long *places, int *last, long long items, const Planes p) {
  FOR_EACH(i, items) {
    const Place here(i, p, p.by_cells);
    PackOf<long long> at = load(places + i * WIDTH);
    for (int k = 0; k < WIDTH; k++)
      if (inside_of(at.v[k], p)) atomicMax(last + here.at((Index)p.targets, (Index)at.v[k], p) + k, (int)here.cell + 1);
  }
}

extern "C" __global__ void spread(const T *x, const int *last, T *y, long long items, const Planes p) {
  FOR_EACH(i, items) {
    const Place here(i, p, p.by_targets);
    PackOf<int> cell = load(last + i * WIDTH);
    Pack seen;
    for (int k = 0; k < WIDTH; k++)
      seen.v[k] = cell.v[k] ? x[here.at((Index)p.cells, cell.v[k] - 1, p) + k] : narrow(0);
    store(y + i * WIDTH, seen);
  }
}

extern "C" __global__ void collect(const long long *places, const int *last, const T *dy, T *dx, long long items,
                                   const Planes p) {
  FOR_EACH(i, items) {
    const Place here(i, p, p.by_cells);
    PackOf<long long> at = load(places + i * WIDTH);
    Pack seen;
    for (int k = 0; k < WIDTH; k++) {
      Index target = here.at((Index)p.targets, inside_of(at.v[k], p) ? (Index)at.v[k] : 0, p) + k;
      seen.v[k] = inside_of(at.v[k], p) && last[target] == (int)here.cell + 1 ? dy[target] : narrow(0);
    }
    store(dx + i * WIDTH, seen);
  }
}
