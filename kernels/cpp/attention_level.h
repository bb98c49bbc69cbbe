// What attention.cpp and the code of one level (attention_level.cpp) tell each other: one tile of keys, and its results.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace attention {

constexpr int TILE = 256, STRIP = 16, STRIPS_AT_ONCE = 4, KEYS_AHEAD = 64;
constexpr int WORK_TO_WEIGH = 20;  // vector operations that 16 weights of the softmax cost, about
constexpr float LOWEST = -1e30f;   // finite: a tile in which a row sees nothing stays finite too, with weight 0
constexpr int SCORES_ROW = TILE + STRIP;  // strips may be scored in pairs: behind an odd number of them one more is written

// Rows [row, row + rows) of every head read keys [low, high) of the tile, at these elements of the pools: offset[key - low].
struct Segment {
    const int64_t* offset;
    int row, rows, low, high;
};

// A tile as some query rows see it, for some KV heads. Segments stand in order of position, and together they are a tree: those
// that begin later are read by some of the rows that read the ones before, so that what rows share is read once. They begin at
// multiples of 16 keys.
//
//   rows 0 to 3   [ 0 ............... 96 )                    keys
//   rows 0, 1                            [ 96 ....... 200 )
//   row 2                                [ 96 .. 130 )
//   row 3                                [ 96 ...... 180 )
//
// Row r of each head sees [row_low[r], row_high[r]) of what its segments hold. Scores are scale * q.k, or
// cap * tanh(scale * q.k), in powers of two.
struct Tile {
    const void *keys, *values;  // of the first head
    const Segment* segments;
    int num_segments, heads, rows, head_dim;
    int kv_row;     // elements of a pool from one head to the next
    bool first;     // nobody has asked memory for its first keys yet
    bool streamed;  // memory is asked for what follows; false where other rows have just read the same
    const int64_t* next_offset;  // the first keys that the same thread reads in the next tile, next_keys of them
    int next_keys;
    const float* queries;  // [heads][rows][units]
    const float* query_scales;  // [heads][rows], where units are whole numbers
    const int *row_low, *row_high;
    float scale, cap;
};

// softmax numerator of some tiles times V, [heads * rows][head_dim]; each row's largest score and sum of weights.
struct Part {
    float *top, *total, *out;
};

// Query rows of a segment that are multiplied together; they see some of strips [first, last).
struct Group {
    int row, size, first, last;
};

// Slots that memory is asked for: `count` of one pool.
struct Run {
    const char* pool;
    const int64_t* offset;
    int count;
};

// Scratch: packed [STRIPS_AT_ONCE * STRIP * head_dim], scores [heads * rows * SCORES_ROW], weights [heads * rows * TILE],
// value_scales [heads * rows], groups, row_first and row_last [rows], runs [2 * num_segments + 1].
struct Space {
    float *packed, *scores, *weights, *value_scales;
    Group* groups;
    int *row_first, *row_last;
    Run* runs;
};

using Attend = void(const Tile&, const Part&, const Space&);

struct Level {
    Attend *fp32, *bf16_keys, *bf16, *int8;  // KV in fp32; KV in bf16 and q in fp32; both in bf16; KV in int8
    bool bf16_queries;                       // the third takes q as it is; the first two take q in fp32
    // One query of head_dim numbers in fp32 (or bf16) as the last takes it, and its scale.
    void (*round_query)(const void* q, bool bf16, int head_dim, float* to, float* scale);
    void (*merge)(const Part& sum, const Part& next, int rows, int head_dim);
};

namespace level0 {
extern const Level LEVEL;
}
namespace level1 {
extern const Level LEVEL;
}
namespace level2 {
extern const Level LEVEL;
}
namespace level3 {
extern const Level LEVEL;
}

}  // namespace attention
