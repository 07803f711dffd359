// 3×3 convolution. Included once for each instruction set, inside its namespace.
//
// F(2×2, 3×3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: squares of 2×2
// pixels of the result cost 16 products of channels in place of 36.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

template <class Number, class O = Operand<Number>>
class ConvolutionKernel {
 public:
  ConvolutionKernel(const Convolution<Number>& problem, int threads)
      : p_(problem),
        height_(round_up(rows_at_once(p_.height, HEIGHT, p_.images, threads), 2)),
        bands_((p_.height + height_ - 1) / height_),
        squares_((p_.width + 1) / 2),
        span_(2 * squares_ + 2),
        width_(round_up(p_.channels, LANES)),
        matrix_(POINTS * width_, p_.out_channels),
        bias_(p_.bias, p_.out_channels),
        reader_(p_.norm, p_.channels) {
    for (int64_t out = 0; out < p_.out_channels; ++out)
      for (int64_t in = 0; in < p_.channels; ++in) transform_weight(out, in);
  }

  int64_t tasks() const { return p_.images * bands_; }

  void operator()(int64_t task) const {
    const int64_t top = task % bands_ * height_;
    Band band(*this, task / bands_);
    band.run(top, std::min(p_.height, top + height_));
  }

 protected:
  static constexpr int64_t HEIGHT = 256;  // of a band, whose neighboring rows are read twice
  static constexpr int64_t SQUARES = 32;  // transformed at a time, so that they stay in the cache
  static constexpr int POINTS = 16;       // at which the polynomials of a square are multiplied

  // G w Gᵀ
  void transform_weight(int64_t out, int64_t in) {
    const Number* weight = p_.weight + (out * p_.channels + in) * 9;
    float half[4][3];
    for (int j = 0; j < 3; ++j) {
      const float a = to_float(weight[j]), b = to_float(weight[3 + j]), c = to_float(weight[6 + j]);
      const float column[] = {a, (a + b + c) / 2, (a - b + c) / 2, c};
      for (int i = 0; i < 4; ++i) half[i][j] = column[i];
    }
    for (int i = 0; i < 4; ++i) {
      const float a = half[i][0], b = half[i][1], c = half[i][2];
      const float row[] = {a, (a + b + c) / 2, (a - b + c) / 2, c};
      for (int j = 0; j < 4; ++j) matrix_.set((4 * i + j) * width_ + in, out, row[j]);
    }
  }

  struct Band {
    Band(const ConvolutionKernel& kernel, int64_t image)
        : a(kernel),
          image(image),
          columns(a.matrix_.columns),
          scratch(a.reader_.scratch()),
          rows(4 * a.span_ * a.width_),
          in_step(SQUARES * a.width_ + LANES * TOGETHER<O>),
          product_step(SQUARES * columns + LANES),
          in(POINTS * in_step),
          nothing(columns),
          products(POINTS * product_step),
          out(4 * columns) {
      std::fill(rows + 0, rows + 4 * a.span_ * a.width_, 0.0f);  // and what is outside the image stays so
      std::memset(in, 0, POINTS * in_step * sizeof(O));
      std::fill(nothing + 0, nothing + columns, 0.0f);
    }

    void run(int64_t top, int64_t bottom) {
      read(top - 1);
      read(top);
      for (int64_t y = top; y < bottom; y += 2) {
        read(y + 1);
        read(y + 2);
        for (int64_t square = 0; square < a.squares_; square += SQUARES) {
          const int64_t count = std::min(SQUARES, a.squares_ - square);
          transform(y, square, count);
          for (int64_t point = 0; point < POINTS; ++point)
            multiply<O>(count, in + point * in_step, a.width_, a.width_, a.matrix_.from(point * a.width_), columns, nothing,
                        0, products + point * product_step, columns);
          for (int64_t i = 0; i < count; ++i)
            write(y, 2 * (square + i), std::min(bottom, y + 2), products + i * columns);
        }
      }
    }

    float* row(int64_t y) const { return rows + (y + 4) % 4 * a.span_ * a.width_; }

    // Pixels from −1 on; those outside the image are zero.
    void read(int64_t y) const {
      float* to = row(y) + a.width_;
      if (y < 0 || y >= a.p_.height) {
        std::fill(to, to + a.p_.width * a.width_, 0.0f);
        return;
      }
      for (int64_t x = 0; x < a.p_.width; ++x, to += a.width_) a.reader_.read(a.p_.x.at(image, 0, y, x), scratch, to);
    }

    // Bᵀ d B of some squares and their surroundings.
    void transform(int64_t y, int64_t square, int64_t count) const {
      const int64_t width = a.width_, step = in_step;  // read once, not after every store
      const float* const from[] = {row(y - 1), row(y), row(y + 1), row(y + 2)};
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < width; c += LANES) {
          const int64_t offset = 2 * (square + i) * width + c;
          Vector half[4][4];
          CONVATTN_UNROLL(4)
          for (int j = 0; j < 4; ++j) {
            Vector pixel[4];
            CONVATTN_UNROLL(4)
            for (int r = 0; r < 4; ++r) pixel[r] = load(from[r] + offset + j * width);
            half[0][j] = pixel[0] - pixel[2];
            half[1][j] = pixel[1] + pixel[2];
            half[2][j] = pixel[2] - pixel[1];
            half[3][j] = pixel[1] - pixel[3];
          }
          O* to = in + i * width + c;
          CONVATTN_UNROLL(4)
          for (int r = 0; r < 4; ++r, to += 4 * step) {
            store(to, half[r][0] - half[r][2]);
            store(to + step, half[r][1] + half[r][2]);
            store(to + 2 * step, half[r][2] - half[r][1]);
            store(to + 3 * step, half[r][1] - half[r][3]);
          }
        }
    }

    // Aᵀ m A, the pixels of one square that lie in the band.
    void write(int64_t y, int64_t x, int64_t bottom, const float* product) const {
      for (int64_t c = 0; c < columns; c += LANES) {
        const Vector bias = load(a.bias_ + c);
        Vector half[2][4];
        CONVATTN_UNROLL(4)
        for (int j = 0; j < 4; ++j) {
          Vector point[4];
          CONVATTN_UNROLL(4)
          for (int r = 0; r < 4; ++r) point[r] = load(product + (4 * r + j) * product_step + c);
          half[0][j] = point[0] + point[1] + point[2];
          half[1][j] = point[1] - point[2] - point[3];
        }
        CONVATTN_UNROLL(2)
        for (int r = 0; r < 2; ++r) {
          store(out + 2 * r * columns + c, half[r][0] + half[r][1] + half[r][2] + bias);
          store(out + (2 * r + 1) * columns + c, half[r][1] - half[r][2] - half[r][3] + bias);
        }
      }
      for (int64_t i = y; i < bottom; ++i)
        for (int64_t j = x; j < std::min(a.p_.width, x + 2); ++j) {
          float* pixel = out + (2 * (i - y) + j - x) * columns;
          if (a.p_.residual.data) add(a.p_.residual.at(image, 0, i, j), a.p_.out_channels, pixel);
          copy(pixel, a.p_.out_channels, a.p_.out.at(image, 0, i, j));
        }
    }

    const ConvolutionKernel& a;
    const int64_t image, columns;
    const Buffer<float> scratch;
    const Buffer<float> rows;      // (4, span, channels)
    const int64_t in_step, product_step;  // from point to point; at a power of two they would share lines of the cache
    const Buffer<O> in;            // (POINTS, SQUARES, channels)
    const Buffer<float> nothing;   // a pixel
    const Buffer<float> products;  // (POINTS, SQUARES, out_channels)
    const Buffer<float> out;       // (2, 2, out_channels)
  };

  const Convolution<Number> p_;
  const int64_t height_, bands_, squares_, span_;
  const int64_t width_;  // channels, padded
  Matrix<O> matrix_;
  const Parameter<Number> bias_;
  const Reader<Number> reader_;
};
