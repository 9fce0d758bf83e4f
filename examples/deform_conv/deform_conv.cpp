// Deformable convolution, version 2 (Zhu et al., 2018, arXiv:1811.11168): a convolution whose kernel reads x
// at positions that are inputs, too, by bilinear interpolation, each scaled by a mask.
//
// Inputs and attributes are those of ONNX's operator DeformConv (opset 19), but for kernel_shape, which the
// weight has:
//   x (n, c, h, w), weight (out, c / group, kh, kw)
//   offset (n, offset_group * kh * kw * 2, oh, ow): rows and columns by turns
//   bias (out,), mask (n, offset_group * kh * kw, oh, ow): both may be absent
//   y (n, out, oh, ow)
// What is read outside of x is 0; so is what is read at a position that is NaN.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ort_ops/op.hpp>
#include <vector>

namespace {

using ort_ops::Context;
using ort_ops::Dims;
using ort_ops::fail;
using ort_ops::Input;
using ort_ops::Node;
using ort_ops::Output;
using ort_ops::Shape;
using ort_ops::Shapes;

using Integers = std::vector<std::int64_t>;

// The attribute, of as many integers as its default has, none below `least`.
Integers integers(const Node& node, const char* key, const Integers& otherwise, std::int64_t least) {
  Integers found = node.attribute(key, otherwise);
  if (found.size() != otherwise.size() || *std::min_element(found.begin(), found.end()) < least)
    fail("DeformConv: ", key, " is ", found, "; expected ", otherwise.size(), " integers from ", least,
         " on");
  return found;
}

struct Attributes {
  Integers strides, pads, dilations;  // pads: top, left, bottom, right
  std::int64_t group, offset_group;

  explicit Attributes(const Node& node)
      : strides(integers(node, "strides", {1, 1}, 1)),
        pads(integers(node, "pads", {0, 0, 0, 0}, 0)),
        dilations(integers(node, "dilations", {1, 1}, 1)),
        group(node.attribute("group", std::int64_t{1})),
        offset_group(node.attribute("offset_group", std::int64_t{1})) {
    if (group < 1 || offset_group < 1)
      fail("DeformConv: group is ", group, " and offset_group ", offset_group, "; expected 1 or more");
  }
};

struct Sizes {
  std::int64_t batch, channels, height, width, out, kernel_height, kernel_width, out_height, out_width;

  std::int64_t taps() const { return kernel_height * kernel_width; }
  std::int64_t pixels() const { return out_height * out_width; }
};

// How many steps a kernel takes along one dimension, 0 for height and 1 for width.
std::int64_t steps(const Attributes& attributes, std::size_t dim, std::int64_t size, std::int64_t kernel) {
  const std::int64_t padded = size + attributes.pads[dim] + attributes.pads[dim + 2];
  const std::int64_t reach = attributes.dilations[dim] * (kernel - 1) + 1;
  if (kernel < 1 || reach > padded)
    fail("DeformConv: the kernel reaches over ", reach, " but x with its pads has ", padded,
         "; expected 1 to ", padded);
  return (padded - reach) / attributes.strides[dim] + 1;
}

void expect(const char* name, const Shape& shape, const Shape& expected) {
  if (shape != expected) fail("DeformConv: ", name, " is ", shape, "; expected ", expected);
}

Sizes sizes_of(const Attributes& attributes, const Shape& x, const Shape& weight) {
  if (x.size() != 4 || weight.size() != 4)
    fail("DeformConv: x is ", x, " and weight is ", weight,
         "; expected (n, c, h, w) and (out, c / group, kh, kw)");
  const std::int64_t group = attributes.group, offset_group = attributes.offset_group;
  if (x[1] != group * weight[1] || weight[0] % group != 0 || x[1] % offset_group != 0)
    fail("DeformConv: x is ", x, " and weight is ", weight, " in ", group, " groups and ", offset_group,
         " of offsets; expected groups that divide the channels");
  if (x[1] * x[2] * x[3] == 0) fail("DeformConv: x is ", x, "; expected channels and pixels");
  return {x[0],
          x[1],
          x[2],
          x[3],
          weight[0],
          weight[2],
          weight[3],
          steps(attributes, 0, x[2], weight[2]),
          steps(attributes, 1, x[3], weight[3])};
}

// Where one output pixel reads, and how much of it: the four pixels around a position.
template <typename T>
struct Sample {
  std::int64_t index[4];  // into a plane of x; -1 outside of it
  T weight[4], mask;
  bool inside;  // all four

  Sample(const Sizes& sizes, T row, T column, T scale)
      : index{-1, -1, -1, -1}, weight{}, mask(scale), inside(false) {
    // Of what is further out nothing is read. Nor is it of NaN, and only what passes here fits an integer.
    if (!(row > -1 && row < T(sizes.height) && column > -1 && column < T(sizes.width))) return;
    const T top = std::floor(row), left = std::floor(column);
    const T down = row - top, right = column - left;
    const auto i = static_cast<std::int64_t>(top), j = static_cast<std::int64_t>(left);
    set(sizes, 0, i, j, (1 - down) * (1 - right));
    set(sizes, 1, i, j + 1, (1 - down) * right);
    set(sizes, 2, i + 1, j, down * (1 - right));
    set(sizes, 3, i + 1, j + 1, down * right);
    inside = *std::min_element(index, index + 4) >= 0;
  }

  T operator()(const T* plane) const {
    T sum = 0;
    for (int corner = 0; corner < 4; ++corner)
      if (inside || index[corner] >= 0) sum += weight[corner] * plane[index[corner]];
    return mask * sum;
  }

 private:
  void set(const Sizes& sizes, int corner, std::int64_t i, std::int64_t j, T share) {
    if (i < 0 || i >= sizes.height || j < 0 || j >= sizes.width) return;
    index[corner] = i * sizes.width + j;
    weight[corner] = share;
  }
};

// The tensors of one run, and what is read of x.
template <typename T>
struct Reader {
  // Output pixels that a thread takes at a time: enough of them that starting costs little beside them.
  static constexpr std::int64_t kBlock = 256;

  const Attributes& attributes;
  Sizes sizes;
  const T *x, *offset, *mask;  // mask may be null

  // Fills `columns`, (channels * taps, pixels), for one image: what each tap reads for each pixel.
  void read(const Context& context, std::int64_t image, T* columns) const {
    const std::int64_t blocks = (sizes.pixels() + kBlock - 1) / kBlock;
    const std::int64_t rows = attributes.offset_group * sizes.taps();
    context.parallel_for(static_cast<std::size_t>(rows * blocks), [&](std::size_t i) {
      const std::int64_t row = static_cast<std::int64_t>(i) / blocks,
                         block = static_cast<std::int64_t>(i) % blocks;
      read(image, row / sizes.taps(), row % sizes.taps(), block * kBlock, columns);
    });
  }

 private:
  // For one tap and the channels of one group of offsets, which read at the same positions.
  void read(std::int64_t image, std::int64_t group, std::int64_t tap, std::int64_t first, T* columns) const {
    const std::int64_t channels = sizes.channels / attributes.offset_group;
    const std::int64_t last = std::min(first + kBlock, sizes.pixels());
    std::vector<Sample<T>> samples;
    samples.reserve(kBlock);
    for (std::int64_t pixel = first; pixel < last; ++pixel)
      samples.push_back(sample(image, group, tap, pixel));
    for (std::int64_t channel = group * channels; channel < (group + 1) * channels; ++channel) {
      const T* plane = x + (image * sizes.channels + channel) * sizes.height * sizes.width;
      T* to = columns + (channel * sizes.taps() + tap) * sizes.pixels() + first;
      for (const Sample<T>& each : samples) *to++ = each(plane);
    }
  }

  Sample<T> sample(std::int64_t image, std::int64_t group, std::int64_t tap, std::int64_t pixel) const {
    const std::int64_t plane = (image * attributes.offset_group + group) * sizes.taps() + tap;
    const T* moved = offset + 2 * plane * sizes.pixels() + pixel;
    const auto at = [&](std::size_t dim, std::int64_t step, std::int64_t within) {
      return T(step * attributes.strides[dim] - attributes.pads[dim] + within * attributes.dilations[dim]);
    };
    return Sample<T>(sizes, at(0, pixel / sizes.out_width, tap / sizes.kernel_width) + moved[0],
                     at(1, pixel % sizes.out_width, tap % sizes.kernel_width) + moved[sizes.pixels()],
                     mask == nullptr ? T(1) : mask[plane * sizes.pixels() + pixel]);
  }
};

template <typename T>
struct DeformConv {
  static constexpr const char* name = "DeformConv";
  Attributes attributes;
  ort_ops::BuiltIn gemm;  // y = weight * columns + bias, in ONNX Runtime's threads

  explicit DeformConv(const Node& node)
      : attributes(node),
        gemm(node, "Gemm", 13, {{"T", ort_ops::element_type<T>}},
             {{"transA", 0}, {"transB", 0}, {"alpha", 1.0f}, {"beta", 1.0f}}, node.has_input(3) ? 3 : 2, 1) {}

  // As far as they are known: the images of x, the channels of the weight, the pixels of the offset.
  static void infer(Shapes& shapes) {
    const auto x = shapes.input(0), weight = shapes.input(1), offset = shapes.input(2);
    const auto dim = [](const std::optional<Dims>& of, std::size_t i) {
      return of && of->size() == 4 ? (*of)[i] : ort_ops::Dim();
    };
    shapes.output(0, Dims{dim(x, 0), dim(weight, 0), dim(offset, 2), dim(offset, 3)});
  }

  void compute(const Context& context, Input<T> x, Input<T> weight, Input<T> offset,
               std::optional<Input<T>> bias, std::optional<Input<T>> mask, Output<T> y) const {
    const Sizes sizes = sizes_of(attributes, x.shape(), weight.shape());
    const std::int64_t planes = attributes.offset_group * sizes.taps();
    expect("offset", offset.shape(), {sizes.batch, 2 * planes, sizes.out_height, sizes.out_width});
    if (bias) expect("bias", bias->shape(), {sizes.out});
    if (mask) expect("mask", mask->shape(), {sizes.batch, planes, sizes.out_height, sizes.out_width});

    T* to = y.allocate({sizes.batch, sizes.out, sizes.out_height, sizes.out_width});
    if (sizes.batch * sizes.out == 0) return;
    const Reader<T> reader{attributes, sizes, x.data(), offset.data(), mask ? mask->data() : nullptr};
    const auto columns =
        context.scratch<T>(static_cast<std::size_t>(sizes.channels * sizes.taps() * sizes.pixels()));
    for (std::int64_t image = 0; image < sizes.batch; ++image) {
      reader.read(context, image, columns.data());
      multiply(context, sizes, weight.data(), columns.data(), bias ? bias->data() : nullptr,
               to + image * sizes.out * sizes.pixels());
    }
  }

 private:
  // For one image; the groups lie one after the other in each of the tensors.
  void multiply(const Context& context, const Sizes& sizes, const T* weight, const T* columns, const T* bias,
                T* y) const {
    const std::int64_t outs = sizes.out / attributes.group;
    const std::int64_t terms = sizes.channels / attributes.group * sizes.taps();
    for (std::int64_t group = 0; group < attributes.group; ++group) {
      const auto a = context.wrap(weight + group * outs * terms, {outs, terms});
      const auto b = context.wrap(columns + group * terms * sizes.pixels(), {terms, sizes.pixels()});
      const auto to = context.wrap(y + group * outs * sizes.pixels(), {outs, sizes.pixels()});
      if (bias == nullptr) {
        gemm(context, {a.value(), b.value()}, {to.value()});
      } else {
        const auto c = context.wrap(bias + group * outs, {outs, 1});
        gemm(context, {a.value(), b.value(), c.value()}, {to.value()});
      }
    }
  }
};

}  // namespace

ORT_OPS_LIBRARY("example", DeformConv<float>, DeformConv<double>)
