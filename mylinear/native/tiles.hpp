// Dot products of some rows of x and four rows of the weight at once, in Vectors. dots.cpp includes this once
// for each kind of processor, in a namespace of its own: only what is marked FOR_PROCESSOR may have its
// instructions.

// Adds the products from column i on, of as many columns as a vector has, or of `count`.
template <typename T, int kRows, typename W, typename... Count>
FOR_PROCESSOR inline void add_products(std::int64_t in, const W* x, const T* const* weight, std::int64_t i,
                                       typename Vectors<W>::Vector (&sums)[kRows][4], Count... count) {
  typename Vectors<W>::Vector from[kRows];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) from[row] = Vectors<W>::load(x + row * in + i, count...);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto by = Vectors<W>::load(weight[k] + i, count...);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) sums[row][k] = Vectors<W>::add(from[row], by, sums[row][k]);
  }
}

// Of y's rows `columns` are written, 4 at most.
template <int kRows, typename T, typename W>
FOR_PROCESSOR inline void tile(const Sizes& sizes, const W* x, const T* const* weight, std::int64_t columns,
                               const W* bias, W* y) {
  typename Vectors<W>::Vector sums[kRows][4] = {};
  constexpr std::int64_t kLanes = Vectors<W>::kLanes;
  std::int64_t i = 0;
  for (; i + kLanes <= sizes.in; i += kLanes) add_products<T, kRows>(sizes.in, x, weight, i, sums);
  if (i < sizes.in) add_products<T, kRows>(sizes.in, x, weight, i, sums, sizes.in - i);
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    W each[4];
    Vectors<W>::store_totals(sums[row], each);
    for (int k = 0; k < 4; ++k) each[k] += bias[k];
    W* to = y + row * sizes.stride;
    if (columns == 4)
      std::copy_n(each, 4, to);
    else
      std::copy_n(each, columns, to);
  }
}

// Goes through the weight once for all of x's rows.
template <typename T, typename W>
FOR_PROCESSOR void dots_by_tiles(const Sizes& sizes, const W* x, const T* weight, const T* bias, W* y) {
  for (std::int64_t i = 0; i < sizes.out; i += 4) {
    const std::int64_t columns = std::min<std::int64_t>(sizes.out - i, 4);
    // Where fewer than four are left, the last stands for those that are missing, too.
    const T* four[4];
    W plus[4] = {};
    for (std::int64_t k = 0; k < 4; ++k) four[k] = weight + (i + std::min(k, columns - 1)) * sizes.in;
    for (std::int64_t k = 0; bias != nullptr && k < columns; ++k) plus[k] = static_cast<W>(bias[i + k]);
    std::int64_t row = 0;
    const auto left = [&] { return sizes.rows - row; };
    for (; left() >= kTileRows; row += kTileRows)
      tile<kTileRows>(sizes, x + row * sizes.in, four, columns, plus, y + row * sizes.stride + i);
    for (; left() >= 2; row += 2)
      tile<2>(sizes, x + row * sizes.in, four, columns, plus, y + row * sizes.stride + i);
    if (left() == 1) tile<1>(sizes, x + row * sizes.in, four, columns, plus, y + row * sizes.stride + i);
  }
}
