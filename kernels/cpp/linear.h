// Linear layers on raw pointers: y = x W^T + b, with W in bf16 as oneDNN packs it, or in 8 or 4 bits with scales.
#pragma once

#include <cstdint>

namespace ramify_linear {

constexpr int BLOCK = 64;  // outputs whose weights lie together: four vectors of 16

// ------------------------------------------------------------------------------------------------------------ calls

// W in bf16: [blocks of 64 outputs][pairs of columns][64 outputs][2 columns], padded with zeros.
struct Dense {
    const uint16_t* x;  // [rows, columns], bf16, rows x_stride elements apart
    int64_t x_stride;
    int64_t rows, columns, outputs;
    const uint16_t* weight;
    int64_t pairs;         // of columns in memory: at least columns / 2, rounded up
    const uint16_t* bias;  // bf16 [outputs], or null
    uint16_t* out;         // bf16 [rows, outputs]
    int64_t chain;         // pairs that are summed up before they are added to those before: a multiple of CHAIN_UNIT; 0: all
    int threads;
};

constexpr int CHAIN_UNIT = 64;  // a multiple of the pairs that are computed at a time

// W in `bits` bits: [blocks of 64 outputs][groups of columns] of
//
//   8 bits:  [column / 4][64 outputs][4 columns], q + 128                         then 64 scales in bf16
//   4 bits:  [column / 8][64 outputs][4 columns], q + 8; columns c and c + 4 share a byte, c in the low half
//
// w = scale * q. Outputs and columns that do not exist have q = 0.
struct Quantized {
    uint8_t* blocks;
    int64_t columns, outputs;
    int bits, group;  // columns that share a scale: a multiple of 16, at most MAX_GROUP

    int64_t groups() const { return (columns + group - 1) / group; }
    int64_t num_blocks() const { return (outputs + BLOCK - 1) / BLOCK; }
    int64_t group_bytes() const { return int64_t(BLOCK) * group * bits / 8 + 2 * BLOCK; }
    int64_t block_bytes() const { return groups() * group_bytes(); }
};

constexpr int MAX_GROUP = 128;

struct QuantizedProduct {
    Quantized weight;
    const void* x;  // [rows, columns], bf16 or fp32, rows x_stride elements apart
    int64_t x_stride;
    int64_t rows;
    bool bf16;         // x, bias and out
    const void* bias;  // [outputs], or null
    void* out;         // [rows, outputs]
    int level, threads;
};

int best_integer_level();  // 0: whatever the compiler targets, 1: AVX2, 2: AVX512, 3: AVX512-VNNI
bool has_bf16_level();     // AVX512-BF16

void multiply(const Dense& call);              // needs has_bf16_level()
// To the layout of Dense::weight, with columns / 2 pairs, rounded up. weight: bf16 [outputs, columns], contiguous.
void pack(const uint16_t* weight, int64_t outputs, int64_t columns, int32_t* to, int threads);
void multiply(const QuantizedProduct& call);   // level: at most best_integer_level()
// Writes to.blocks. weight: bf16 or fp32 [outputs, columns], contiguous.
void quantize(const Quantized& to, const void* weight, bool bf16, int level, int threads);
// Rows of the weight, scale * q. ids: [count], all within the outputs. out: bf16 or fp32 [count, columns].
void read_rows(const Quantized& from, const int64_t* ids, int64_t count, void* out, bool bf16);

// --------------------------------------------------------------------------------- what each set of instructions has

// Rows of bf16 times a part of a block. `chains`, [rows][64], is the sum of this chain so far; where the part ends a chain, it
// is added to `sums`, [rows][64], which are those of the chains before. The last part of a block has `out`.
struct DenseTile {
    const uint16_t* x;
    int64_t x_stride;
    int rows, pairs;
    const uint16_t* weight;
    float *chains, *sums;
    bool begins, ends;     // a chain
    bool first;            // this chain is the first one: sums are not read
    const uint16_t* bias;  // of the block, or null
    uint16_t* out;         // [rows][outputs of the block], rows out_stride elements apart: the sum and the bias, rounded once
    int64_t out_stride;
    int outputs;
    const char* ahead;     // weights to be fetched meanwhile, as many as those of this part, or null
};

struct DenseLevel {
    void (*multiply)(const DenseTile&);
};

// x in 8 bits: x = scale * q, a scale for each row and group. offset: -128 or -8 times the sum of q.
struct IntegerTile {
    const int8_t* x;  // [rows][groups * group]
    int64_t x_stride;
    const float* scales;    // [rows][groups], as are offsets
    const int32_t* offsets;
    int64_t group_stride;
    int rows, groups, group;  // of this part
    const uint8_t* weight;
    float* sums;        // [rows][64], added to
};

struct IntegerLevel {
    void (*multiply8)(const IntegerTile&);
    void (*multiply4)(const IntegerTile&);
    void (*finish)(const float* sums, int rows, int outputs, const void* bias, bool bf16, void* out, int64_t out_stride);
    // One row of x, from `columns` values; q beyond them is 0.
    void (*quantize_x)(const void* x, bool bf16, int64_t columns, int group, int bits, int8_t* q, float* scales,
                       int32_t* offsets);
    // One group of one row of a weight: q as whole numbers in fp32, w = scale * q. Returns the scale, which bf16 holds.
    float (*quantize_w)(const float* w, int group, int bits, float* q);
};

extern const DenseLevel DENSE_AVX512_BF16;
extern const IntegerLevel INTEGER_BASELINE, INTEGER_AVX2, INTEGER_AVX512, INTEGER_VNNI;

}  // namespace ramify_linear
