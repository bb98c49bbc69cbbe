// From logits to tokens on raw pointers. What each step means stands in kernels/sampling/interface.py.
#pragma once

#include <cstdint>

#include "attention.h"

constexpr int64_t RAMIFY_BLOCK = 128;  // tokens whose weights are added in one fixed tree

// A token to be drawn.
struct RamifyDraw {
    const void* logits;  // [vocab]
    float inverse_temperature;  // 0: greedy
    float top_p, min_p, uniform;
    int64_t top_k;
    const int64_t* bias_ids;
    const float* bias_values;
    int64_t biases;
    const int64_t* banned_ids;
    int64_t banned;
    const int32_t* counts;     // [vocab], or null: no penalties
    const uint8_t* in_prompt;  // [vocab]
    float presence, frequency, repetition;
    const int32_t* mask;  // [words], or null
    int64_t words;

    bool edited() const { return biases || banned || counts || mask; }
};

// The largest logit, NaN if there is one, and the lowest id that has it.
struct RamifyBest {
    float value;
    int64_t id;
};

// Logits of a row in fp32 or bf16, with the weights exp((logit - largest) * inverse_temperature).
struct RamifyWeighed {
    const void* logits;
    int64_t vocab;
    float largest, inverse_temperature;
};

// The passes over a row of one set of instructions; two entries: for logits in fp32 and in bf16 (RamifyDtype).
struct RamifySampling {
    RamifyBest (*scan[2])(const void* logits, int64_t first, int64_t last);
    // Bias, penalties, bans and mask of ids [first, last), whole blocks; ids from vocab on become -inf. Returns the best of
    // them. edited: of the whole row; null where nobody looks at it again.
    RamifyBest (*edit[2])(const RamifyDraw& draw, int64_t vocab, int64_t first, int64_t last, float* edited);
    // Sum and largest weight of blocks [first, last).
    void (*weigh[2])(const RamifyWeighed& row, int64_t first, int64_t last, float* sums, float* largest);
    void (*block[2])(const RamifyWeighed& row, int64_t block, float* weights);
    // Weights of at least `least`, in any order; out has room for a block more. Returns their number.
    int64_t (*collect[2])(const RamifyWeighed& row, const float* largest, float least, float* out);
    // In place: what is less than `least` or `min_p` becomes 0, and of those equal to `least` the first `equal` stay. Returns
    // the sum; changes `equal` to what the next blocks may keep.
    float (*filter)(float* weights, float least, float min_p, int64_t* equal);
    // A logit's order as an integer: minus zero is zero, NaN lies beyond infinity.
    void (*key_maxima[2])(const void* logits, int64_t vocab, int32_t* largest);
    void (*keys[2])(const void* logits, int64_t vocab, int64_t block, int32_t* keys);
};

namespace level0 {
extern const RamifySampling SAMPLING;
}
#ifdef __x86_64__
namespace level1 {
extern const RamifySampling SAMPLING;
}
namespace level2 {
extern const RamifySampling SAMPLING;
}
#endif

extern "C" {
// tokens: [n], -1 where bad; bad: [n], the row holds NaN or +inf, or nothing above -inf, or nothing is allowed.
void ramify_sample(const RamifyDraw* draws, int64_t n, int64_t vocab, int32_t dtype, int32_t level, int32_t threads,
                   int64_t* tokens, uint8_t* bad);

// Of rows[i] of logits (stride in elements): the largest logit and the sum of exp(logit - largest) in float64; NaN where a row
// holds NaN or +inf, or nothing above -inf.
void ramify_log_totals(const void* logits, int64_t stride, const int64_t* rows, int64_t n, int64_t vocab, int32_t dtype,
                       int32_t level, int32_t threads, float* largest, double* totals);

// Of rows[i]: the `count` largest logits and their ids, largest first, equal ones by id. values, ids: [n, count].
void ramify_ranked(const void* logits, int64_t stride, const int64_t* rows, int64_t n, int64_t vocab, int64_t count,
                   int32_t dtype, int32_t level, int32_t threads, float* values, int64_t* ids);
}
