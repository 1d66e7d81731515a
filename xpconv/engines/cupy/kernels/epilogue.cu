// What follows a product, in one pass: bias, residual, activation, rounding.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256 and a grid of as many as it takes.

// Where the sums lie: row by row, or (held[0] > 0) in a grid that is larger than the windows that count.
struct Grid {
  int held[3];
  Divider packs, out[3];
};

// y = activation(z + bias + residual); sums, where wanted, is what the activation was applied to.
// z holds sums as they were computed; y may be z itself where their dtypes are the same.
extern "C" __global__ void finish(const A *z, const T *bias, const T *residual, T *sums, T *y, long long items,
                                  int activation, const Grid grid) {
  FOR_EACH(i, items) {
    Index pack, row = split(i, grid.packs, pack), at = i;
    if (grid.held[0]) {
      int out[3];
      Index image = unravel(row, grid.out, out);
      at = ravel(image, grid.held, out) * (Index)grid.packs.by + pack;
    }
    Values value = load(z + at * WIDTH), more = load_or(bias, pack * WIDTH, 0), beside = load_or(residual, i * WIDTH, 0);
    for (int k = 0; k < WIDTH; k++) value.v[k] = value.v[k] + more.v[k] + beside.v[k];
    if (sums) store(sums + i * WIDTH, narrowed(value));
    store(y + i * WIDTH, narrowed(activate(activation, value)));
  }
}
