// What follows a product, in one pass: scale and shift, or bias; residual, activation, rounding.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256 and a grid of as many as it takes.

// Where the sums lie: row by row, or (held[0] > 0) in a grid that is larger than the windows that count.
struct Grid {
  int held[3];
  Divider packs, out[3];
};

// y = activation(z * scale + shift + bias + residual); sums, where wanted, is what the activation was applied to.
// z holds sums as they were computed; y may be z itself where their dtypes are the same.
extern "C" __global__ void finish(const A *z, const A *scale, const A *shift, const T *bias, const T *residual,
                                  T *sums, T *y, long long items, int activation, const Grid grid) {
  FOR_EACH(i, items) {
    Index pack, row = split(i, grid.packs, pack), at = i;
    if (grid.held[0]) {
      int out[3];
      Index image = unravel(row, grid.out, out);
      at = ravel(image, grid.held, out) * (Index)grid.packs.by + pack;
    }
    Values value = scaled(load(z + at * WIDTH), scale, shift, pack * WIDTH);
    value = plus(value, load_or(bias, pack * WIDTH, 0), load_or(residual, i * WIDTH, 0));
    if (sums) store(sums + i * WIDTH, narrowed(value));
    store(y + i * WIDTH, narrowed(activate(activation, value)));
  }
}
