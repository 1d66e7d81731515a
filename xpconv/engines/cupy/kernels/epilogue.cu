// What follows a product, in one pass: scale and shift, or bias; residual, activation, rounding.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256 and a grid of as many as it takes.

// Where the sums lie: row by row, or (held[0] > 0) in a grid that is larger than the windows that count.
struct Grid { int out[3], held[3]; };

// y = activation(z * scale + shift + bias + residual); sums, where wanted, is what the activation was applied to.
// z holds sums as they were computed; y may be z itself where their dtypes are the same.
extern "C" __global__ void finish(const A *z, const A *scale, const A *shift, const T *bias, const T *residual,
                                  T *sums, T *y, long long rows, long long channels, int activation,
                                  const Grid grid) {
  Index packs = channels / WIDTH;
  FOR_EACH(i, rows * packs) {
    Index c = i % packs * WIDTH, at = i * WIDTH;
    if (grid.held[0]) {
      int out[3];
      Index image = unravel(i / packs, grid.out, out);
      at = ravel(image, grid.held, out) * channels + c;
    }
    PackOf<A> sum = load(z + at);
    Pack other, before, result;
    if (residual) other = load(residual + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) {
      A value = sum.v[k];
      if (scale) value = value * scale[c + k] + shift[c + k];
      if (bias) value += wide(bias[c + k]);
      if (residual) value += wide(other.v[k]);
      before.v[k] = narrow(value);
      result.v[k] = narrow(activate(activation, value, 0, 0));
    }
    if (sums) store(sums + i * WIDTH, before);
    store(y + i * WIDTH, result);
  }
}
